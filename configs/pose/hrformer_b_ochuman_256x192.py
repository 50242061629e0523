_base_ = [
    '../_base_/pose/models/hrformer_b.py',
    '../_base_/pose/datasets/ochuman_256x192.py',
    '../_base_/pose/schedules/schedule_210e.py',
]
model = dict(head=_base_.head)
