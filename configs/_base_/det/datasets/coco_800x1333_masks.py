# Boxes and masks.
_base_ = './coco_800x1333.py'

load = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
]
train_dataloader = dict(
    dataset=dict(pipeline=[
        *load, _base_.resize, _base_.flip,
        dict(type='PackDetInputs')
    ]))
val_dataloader = dict(
    dataset=dict(pipeline=[load[0], _base_.resize, load[1], _base_.pack]))
test_dataloader = val_dataloader
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = val_evaluator
