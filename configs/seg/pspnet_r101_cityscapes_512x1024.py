# PSPNet on Cityscapes (Table 5), with MMSegmentation's recipe.
_base_ = [
    '../_base_/seg/models/pspnet_r101.py',
    '../_base_/seg/datasets/cityscapes_512x1024_photometric.py',
    '../_base_/seg/schedules/schedule_80k_sgd.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=dict(num_classes=19),
    auxiliary_head=dict(num_classes=19))
