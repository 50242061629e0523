# The same, tested on test-dev; see coco_256x192_testdev.py.
_base_ = './coco_384x288_points.py'

test_dataloader = dict(dataset=_base_.testdev)
test_evaluator = dict(format_only=True)
