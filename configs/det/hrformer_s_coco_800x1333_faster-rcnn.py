# Faster R-CNN with HRFormer-S.
_base_ = [
    '../_base_/det/models/faster-rcnn.py',
    '../_base_/det/datasets/coco_800x1333.py',
    '../_base_/det/schedules/schedule_24e.py',
]
