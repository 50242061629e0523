# HRFormer-S on one finest map, and a 1x1 convolution to the heatmaps. The
# released pose code fuses bilinearly, unlike that of the other two tasks.
model = dict(
    type='TopdownPoseEstimator',
    data_preprocessor=dict(
        type='PoseDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(
        type='hrformer_mm.HRFormer',
        arch='small',
        out_indices=(0, ),
        drop_path_rate=0.1,
        upsample='bilinear',
        init_cfg=dict(type='Pretrained', checkpoint='hrt_small.pth')),
    head=dict(
        type='HeatmapHead',
        in_channels=32,
        out_channels=17,
        deconv_out_channels=None,
        loss=dict(type='KeypointMSELoss', use_target_weight=True)),
    test_cfg=dict(flip_test=True, flip_mode='heatmap', shift_heatmap=True))
