# Images whose shorter side is 520, for training and testing; crops of 520.
_base_ = './loaders.py'

crop_size = (520, 520)
short_side = dict(
    type='Resize', scale=(10000, 520), keep_ratio=True,
    interpolation='bicubic')
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    short_side,
    dict(type='hrformer_mm.RandomScaleAspect'),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='hrformer_mm.RandomBrightness'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    short_side,
    dict(type='LoadAnnotations'),  # after it, so labels keep their size
    dict(type='PackSegInputs'),
]
tta_pipeline = [*test_pipeline[:2], _base_.views]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
