_base_ = [
    '../_base_/pose/models/hrformer_s.py',
    '../_base_/pose/datasets/coco-wholebody_384x288.py',
    '../_base_/pose/schedules/schedule_210e.py',
]
model = dict(head=_base_.head)
dataset_type = 'CocoWholeBodyDataset'
default_hooks = dict(checkpoint=_base_.best)
