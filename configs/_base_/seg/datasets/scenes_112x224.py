# Drawn streets in the layout of Cityscapes, eleven of its classes. At this
# size the three finest maps are whole windows of 7, so nothing is padded.
# Resizing changes nothing but the real images, for a quick look at them.
_base_ = './cityscapes.py'

data_root = 'data/scenes/'
crop_size = (112, 224)
resize = dict(type='Resize', scale=(224, 112))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    resize,
    dict(type='RandomFlip', prob=0.5),
    dict(type='hrformer_mm.RandomBrightness'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    resize,
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
views = dict(transforms=_base_.views.transforms[1:])  # flips alone
tta_pipeline = [
    *test_pipeline[:2],
    dict(type='TestTimeAug', transforms=views['transforms']),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=4,
    num_workers=2,
    dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
