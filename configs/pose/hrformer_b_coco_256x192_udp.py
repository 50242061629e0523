_base_ = [
    '../_base_/pose/hrformer_b.py',
    '../_base_/pose/coco_256x192_udp.py',
    '../_base_/pose/schedule_210e.py',
]

model = dict(
    head=dict(decoder=_base_.codec), test_cfg=dict(shift_heatmap=False))
