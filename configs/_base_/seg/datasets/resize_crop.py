# Steps of MMSegmentation's pipelines. A dataset that inherits this puts its
# sizes between them: RandomResize and RandomCrop, Resize in tests.
_base_ = './loaders.py'

load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
resize = dict(type='RandomResize', ratio_range=(0.5, 2.0), keep_ratio=True)
crop = dict(type='RandomCrop', cat_max_ratio=0.75)
augment = [
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
# Labels are loaded after it, so they keep their size.
test_resize = dict(type='Resize', keep_ratio=True)
pack = dict(type='PackSegInputs')
