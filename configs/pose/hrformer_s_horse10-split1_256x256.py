_base_ = [
    '../_base_/pose/models/hrformer_s.py',
    '../_base_/pose/datasets/horse10-split1_256x256.py',
    '../_base_/pose/schedules/schedule_210e.py',
]
model = dict(head=_base_.head)
dataset_type = 'Horse10Dataset'
default_hooks = dict(checkpoint=_base_.best)
