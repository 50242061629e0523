_base_ = [
    '../_base_/pose/models/hrformer_s.py',
    '../_base_/pose/datasets/freihand2d_224x224.py',
    '../_base_/pose/schedules/schedule_100e.py',
]
model = dict(head=_base_.head)
dataset_type = 'FreiHandDataset'
default_hooks = dict(checkpoint=_base_.best)
