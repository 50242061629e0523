# A copy of configs/pose/custom_keypoints.py with the names and files of
# openfield, for 20 minutes of two CPU cores and from scratch.
_base_ = [
    '../../../configs/_base_/pose/models/hrformer_s.py',
    '../../../configs/_base_/pose/datasets/keypoints_256x192.py',
    '../../../configs/_base_/pose/schedules/schedule_210e.py',
]
from hrformer_mm.datasets.keypoint_metainfo import make_metainfo  # noqa: E402

names = ('snout', 'left_ear', 'right_ear', 'tail_base')
links = (('snout', 'left_ear'), ('snout', 'right_ear'))
dataset = dict(metainfo=make_metainfo(names, links, sigmas=0.05))

model = dict(
    backbone=dict(init_cfg=None),
    head=dict(out_channels=len(names), decoder=_base_.codec))
train_dataloader = dict(
    dataset=dict(
        dataset,
        ann_file='annotations/keypoints_train_wholeimage.json',
        data_prefix=dict(img='images/train/')))
val_dataloader = dict(
    dataset=dict(
        dataset,
        ann_file='annotations/keypoints_val_wholeimage.json',
        data_prefix=dict(img='images/val/')))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=36, val_interval=12)
val_evaluator = dict(_delete_=True, type='EPE')
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best='EPE', rule='less'))
