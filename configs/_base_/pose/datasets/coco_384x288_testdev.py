# Tests on test-dev, whose answers only the evaluation server of COCO has: the
# predictions go into OUTFILE_PREFIX.keypoints.json, which the config sets.
_base_ = './coco_384x288.py'

test_dataloader = dict(dataset=_base_.testdev)
test_evaluator = dict(format_only=True)
