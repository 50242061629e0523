_base_ = [
    '../_base_/pose/models/prtr_w32.py',
    '../_base_/pose/datasets/coco_384x288_points.py',
    '../_base_/pose/schedules/schedule_200e.py',
]

model = dict(head=dict(decoder=_base_.points))
train_dataloader = dict(batch_size=8)
