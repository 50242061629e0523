# Starts from a checkpoint of COCO: --cfg-options load_from=CHECKPOINT.
_base_ = [
    '../_base_/pose/models/hrformer_b.py',
    '../_base_/pose/datasets/posetrack18_256x192.py',
    '../_base_/pose/schedules/schedule_20e.py',
]
model = dict(head=_base_.head)
dataset_type = 'PoseTrack18Dataset'
