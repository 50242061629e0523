_base_ = [
    '../_base_/pose/models/hrformer_t.py',
    '../_base_/pose/datasets/coco_384x288_testdev.py',
    '../_base_/pose/schedules/schedule_210e.py',
]

model = dict(head=dict(decoder=_base_.codec))
test_evaluator = dict(
    outfile_prefix='work_dirs/hrformer_t_coco_384x288_testdev/test-dev2017')
