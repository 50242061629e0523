# HRFormer-S with OCR (v2 of the official code).
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='hrformer_mm.RandomPadPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        # The released weights are for BGR with the statistics of RGB; True
        # gives RGB, as in the pretraining on ImageNet (see configs/seg).
        bgr_to_rgb=False),
    backbone=dict(
        type='hrformer_mm.HRFormer',
        arch='small',
        drop_path_rate=0.2,
        upsample='nearest',
        init_cfg=dict(type='Pretrained', checkpoint='hrt_small.pth')),
    decode_head=dict(
        type='hrformer_mm.OCRHead',
        in_channels=(32, 64, 128, 256),
        loss_decode=dict(
            type='hrformer_mm.OHEMCrossEntropyLoss',
            thresh=0.9,
            min_kept=100000),
        loss_aux=dict(
            type='hrformer_mm.PixelCrossEntropyLoss', loss_weight=0.4)),
    test_cfg=dict(mode='whole'))
