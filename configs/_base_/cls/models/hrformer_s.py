# HRFormer-S with the representation head and a linear classifier.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        num_classes=1000, to_onehot=True, to_rgb=True,
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(
        type='hrformer_mm.HRFormer', arch='small', upsample='nearest'),
    neck=dict(
        type='hrformer_mm.HRFormerClsNeck', in_channels=(32, 64, 128, 256)),
    head=dict(
        type='LinearClsHead', num_classes=1000, in_channels=2048,
        init_cfg=None,  # PyTorch defaults, as in the official code
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1)),
    train_cfg=dict(augments=[  # one of them for every batch, half and half
        dict(type='Mixup', alpha=0.8),
        dict(type='CutMix', alpha=1.0),
    ]))
