_base_ = [
    '../_base_/pose/models/hrformer_b.py',
    '../_base_/pose/datasets/coco-wholebody_384x288.py',
    '../_base_/pose/schedules/schedule_210e.py',
]
model = dict(backbone=dict(drop_path_rate=0.3), head=_base_.head)
train_dataloader = dict(batch_size=16)
auto_scale_lr = dict(base_batch_size=128)
dataset_type = 'CocoWholeBodyDataset'
default_hooks = dict(checkpoint=_base_.best)
