# Crops of 768, augmented as MMSegmentation does it.
_base_ = './cityscapes_512x1024_photometric.py'

crop_size = (768, 768)
train_pipeline = [
    *_base_.train_pipeline[:3],
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    *_base_.train_pipeline[4:],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
