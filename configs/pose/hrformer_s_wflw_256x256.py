_base_ = [
    '../_base_/pose/models/hrformer_s.py',
    '../_base_/pose/datasets/wflw_256x256.py',
    '../_base_/pose/schedules/schedule_60e.py',
]
model = dict(head=_base_.head)
dataset_type = 'WFLWDataset'
default_hooks = dict(checkpoint=_base_.best)
