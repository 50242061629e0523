_base_ = [
    '../_base_/pose/models/hrnet_w32.py',
    '../_base_/pose/datasets/coco_256x192.py',
    '../_base_/pose/schedules/schedule_210e_adam.py',
]

model = dict(head=dict(decoder=_base_.codec))
train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=512)
