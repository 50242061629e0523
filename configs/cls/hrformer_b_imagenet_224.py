# HRFormer-B on ImageNet-1k (Table 6).
_base_ = [
    '../_base_/cls/models/hrformer_b.py',
    '../_base_/cls/datasets/imagenet_224.py',
    '../_base_/cls/schedules/schedule_300e.py',
]
