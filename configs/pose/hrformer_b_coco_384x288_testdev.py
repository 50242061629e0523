_base_ = [
    '../_base_/pose/models/hrformer_b.py',
    '../_base_/pose/datasets/coco_384x288_testdev.py',
    '../_base_/pose/schedules/schedule_210e.py',
]

model = dict(
    backbone=dict(drop_path_rate=0.3), head=dict(decoder=_base_.codec))
# Batch: 128 in the paper, and of the released config on 16 GPUs.
train_dataloader = dict(batch_size=16)
auto_scale_lr = dict(base_batch_size=128)
test_evaluator = dict(
    outfile_prefix='work_dirs/hrformer_b_coco_384x288_testdev/test-dev2017')
