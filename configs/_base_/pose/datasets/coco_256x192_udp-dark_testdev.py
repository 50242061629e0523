# The same, tested on test-dev; see coco_256x192_testdev.py.
_base_ = './coco_256x192_udp-dark.py'

test_dataloader = dict(dataset=_base_.testdev)
test_evaluator = dict(format_only=True)
