# Features of regions, for the second stage.
_base_ = './hrformer_s.py'

extractor = dict(
    type='SingleRoIExtractor',
    roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0),
    out_channels=256,
    featmap_strides=[4, 8, 16, 32])
mask_extractor = dict(
    extractor, roi_layer=dict(extractor['roi_layer'], output_size=14))
mask_head = dict(
    type='FCNMaskHead',
    num_convs=4,
    num_classes=80,
    loss_mask=dict(type='CrossEntropyLoss', use_mask=True))
