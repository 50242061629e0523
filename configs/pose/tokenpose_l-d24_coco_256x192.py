_base_ = [
    '../_base_/pose/tokenpose_l-d24.py',
    '../_base_/pose/coco_256x192.py',
    '../_base_/pose/schedule_300e.py',
]

model = dict(head=dict(decoder=_base_.codec))
train_dataloader = dict(batch_size=8)
