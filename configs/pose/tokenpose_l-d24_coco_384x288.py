_base_ = [
    '../_base_/pose/models/tokenpose_l-d24.py',
    '../_base_/pose/datasets/coco_384x288_udp-dark.py',
    '../_base_/pose/schedules/schedule_300e.py',
]

model = dict(
    neck=dict(heatmap_size=(96, 72), patch_size=(6, 4)),
    head=dict(decoder=_base_.codec),
    test_cfg=dict(shift_heatmap=False))
train_dataloader = dict(batch_size=8)
