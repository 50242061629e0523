# The quickstart: HRFormer-T with small heads, from scratch.
_base_ = [
    '../_base_/det/models/mask-rcnn_synthetic.py',
    '../_base_/det/datasets/people_synthetic.py',
    '../_base_/det/schedules/schedule_minutes.py',
]
