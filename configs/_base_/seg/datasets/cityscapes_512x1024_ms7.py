# The seven scales of the official test of B with windows of 15.
_base_ = './cityscapes_512x1024.py'

scales = [
    dict(type='hrformer_mm.ScaleAligned', scale=scale)
    for scale in (0.5, 0.75, 1., 1.25, 1.5, 1.75, 2.)
]
views = dict(transforms=[scales, *_base_.views.transforms[1:]])
tta_pipeline = [
    _base_.tta_pipeline[0],
    dict(type='TestTimeAug', transforms=views['transforms']),
]
