_base_ = [
    '../_base_/pose/hrnet_w48.py',
    '../_base_/pose/coco_384x288.py',
    '../_base_/pose/schedule_210e_adam.py',
]

model = dict(head=dict(decoder=_base_.codec))
