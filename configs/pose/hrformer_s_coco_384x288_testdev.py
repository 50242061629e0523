_base_ = [
    '../_base_/pose/hrformer_s.py',
    '../_base_/pose/coco_384x288_testdev.py',
    '../_base_/pose/schedule_210e.py',
]

model = dict(head=dict(decoder=_base_.codec))
test_evaluator = dict(
    outfile_prefix='work_dirs/hrformer_s_coco_384x288_testdev/test-dev2017')
