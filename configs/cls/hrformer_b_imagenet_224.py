# HRFormer-B on ImageNet-1k (Table 6).
_base_ = [
    '../_base_/cls/hrformer_b.py',
    '../_base_/cls/imagenet_224.py',
    '../_base_/cls/schedule_300e.py',
]
