_base_ = [
    '../_base_/pose/models/hrformer_t.py',
    '../_base_/pose/datasets/coco_256x192.py',
    '../_base_/pose/schedules/schedule_210e.py',
]

model = dict(head=dict(decoder=_base_.codec))
