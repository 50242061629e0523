# Whether Table 4 has this row, and at which input, is unknown.
_base_ = [
    '../_base_/pose/models/prtr_w32.py',
    '../_base_/pose/datasets/coco_384x288_points_testdev.py',
    '../_base_/pose/schedules/schedule_200e.py',
]

model = dict(head=dict(decoder=_base_.points))
train_dataloader = dict(batch_size=8)
test_evaluator = dict(
    outfile_prefix='work_dirs/prtr_w32_coco_384x288_testdev/test-dev2017')
