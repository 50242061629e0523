# Starts from a checkpoint of MPII: --cfg-options load_from=CHECKPOINT.
_base_ = [
    '../_base_/pose/models/hrformer_s.py',
    '../_base_/pose/datasets/jhmdb-sub1_256x256.py',
    '../_base_/pose/schedules/schedule_20e.py',
]
model = dict(head=_base_.head)
dataset_type = 'JhmdbDataset'
default_hooks = dict(checkpoint=_base_.best)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(type='MultiStepLR', milestones=[8, 15], gamma=0.1)
]
