# SETR-PUP on Cityscapes (Table 5), with MMSegmentation's recipe.
_base_ = [
    '../_base_/seg/models/setr-pup_vit-l.py',
    '../_base_/seg/datasets/cityscapes_768x768.py',
    '../_base_/seg/schedules/schedule_80k_sgd.py',
]

model = dict(data_preprocessor=dict(size=_base_.crop_size))
optim_wrapper = dict(
    optimizer=dict(weight_decay=0.),
    paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=10.)}))
