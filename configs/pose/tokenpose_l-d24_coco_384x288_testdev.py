# Whether Table 4 has this row is unknown.
_base_ = './tokenpose_l-d24_coco_384x288.py'

test_dataloader = dict(dataset=_base_.testdev)
test_evaluator = dict(
    format_only=True,
    outfile_prefix='work_dirs/tokenpose_l-d24_coco_384x288_testdev/'
    'test-dev2017')
