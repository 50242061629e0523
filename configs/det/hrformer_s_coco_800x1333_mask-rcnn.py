# Mask R-CNN with HRFormer-S.
_base_ = [
    '../_base_/det/models/mask-rcnn.py',
    '../_base_/det/datasets/coco_800x1333_masks.py',
    '../_base_/det/schedules/schedule_24e.py',
]
