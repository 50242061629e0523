_base_ = [
    '../_base_/pose/transpose_h-a6.py',
    '../_base_/pose/coco_256x192.py',
    '../_base_/pose/schedule_240e_cosine.py',
]

model = dict(head=dict(decoder=_base_.codec))
train_dataloader = dict(batch_size=7)
