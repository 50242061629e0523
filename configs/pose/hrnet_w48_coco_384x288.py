_base_ = [
    '../_base_/pose/models/hrnet_w48.py',
    '../_base_/pose/datasets/coco_384x288.py',
    '../_base_/pose/schedules/schedule_210e_adam.py',
]

model = dict(head=dict(decoder=_base_.codec))
