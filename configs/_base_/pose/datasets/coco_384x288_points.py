# Data of PRTR: keypoints as fractions of the input, its range of sizes, and no
# half bodies.
_base_ = './coco_384x288.py'

points = dict(
    type='hrformer_mm.models.codecs.UncroppedRegressionLabel',
    input_size=_base_.codec.input_size)
augment = [
    _base_.augment[0],
    dict(type='hrformer_mm.RandomScaleRotation', scale_factor=0.3),
]
train_dataloader = dict(
    dataset=dict(pipeline=[
        *_base_.load, *augment, _base_.crop,
        dict(type='GenerateTarget', encoder=points), _base_.pack
    ]))
