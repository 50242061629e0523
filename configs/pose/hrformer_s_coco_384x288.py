_base_ = [
    '../_base_/pose/hrformer_s.py',
    '../_base_/pose/coco_384x288.py',
    '../_base_/pose/schedule_210e.py',
]

model = dict(head=dict(decoder=_base_.codec))
