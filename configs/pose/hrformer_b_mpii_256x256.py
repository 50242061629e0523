_base_ = [
    '../_base_/pose/models/hrformer_b.py',
    '../_base_/pose/datasets/mpii_256x256.py',
    '../_base_/pose/schedules/schedule_210e.py',
]
model = dict(head=_base_.head)
dataset_type = 'MpiiDataset'
default_hooks = dict(checkpoint=_base_.best)
