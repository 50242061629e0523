# Data of TransPose and TokenPose: UDP's crops, heatmaps with their true
# centre, DARK's decoding, and their ranges of sizes and rotations.
_base_ = './coco_256x192.py'

codec = dict(
    _base_.codec, type='hrformer_mm.models.codecs.UnbiasedUDPHeatmap')
crop = dict(_base_.crop, use_udp=True)
target = dict(type='GenerateTarget', encoder=codec)
augment = [
    *_base_.augment[:-1],
    dict(
        type='hrformer_mm.RandomScaleRotation',
        scale_factor=0.35,
        rotate_factor=45.),
]

train_dataloader = dict(
    dataset=dict(
        pipeline=[*_base_.load, *augment, crop, target, _base_.pack]))
val_dataloader = dict(
    dataset=dict(pipeline=[*_base_.load, crop, _base_.pack]))
test_dataloader = val_dataloader
