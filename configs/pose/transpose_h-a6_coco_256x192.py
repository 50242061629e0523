_base_ = [
    '../_base_/pose/models/transpose_h-a6.py',
    '../_base_/pose/datasets/coco_256x192_udp-dark.py',
    '../_base_/pose/schedules/schedule_240e_cosine.py',
]

model = dict(
    head=dict(decoder=_base_.codec), test_cfg=dict(shift_heatmap=False))
train_dataloader = dict(batch_size=7)
