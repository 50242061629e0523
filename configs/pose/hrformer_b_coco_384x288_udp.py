_base_ = [
    '../_base_/pose/models/hrformer_b.py',
    '../_base_/pose/datasets/coco_384x288_udp.py',
    '../_base_/pose/schedules/schedule_210e.py',
]

model = dict(
    backbone=dict(drop_path_rate=0.3),
    head=dict(decoder=_base_.codec), test_cfg=dict(shift_heatmap=False))
# Batch: 128 in the paper, and of the released config on 16 GPUs.
train_dataloader = dict(batch_size=16)
auto_scale_lr = dict(base_batch_size=128)
