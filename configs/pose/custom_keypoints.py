# Your own keypoints: copy this file and put your names into it. README.md
# has the layout of the data, tools/check_dataset.py reports errors.
_base_ = [
    '../_base_/pose/models/hrformer_s.py',
    '../_base_/pose/datasets/keypoints_256x192.py',
    '../_base_/pose/schedules/schedule_210e.py',
]
from hrformer_mm.datasets.keypoint_metainfo import make_metainfo  # noqa: E402

names = ('nose', 'left_ear', 'right_ear', 'left_paw', 'right_paw', 'tail')
links = (('nose', 'left_ear'), ('nose', 'right_ear'), ('nose', 'tail'))
dataset = dict(metainfo=make_metainfo(names, links, sigmas=0.05))

model = dict(head=dict(out_channels=len(names), decoder=_base_.codec))
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
