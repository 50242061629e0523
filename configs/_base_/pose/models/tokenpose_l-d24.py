# TokenPose-L/D24: 17 tokens among 256 patches, 24 layers.
_base_ = './hrnet_w48_stage3.py'

model = dict(
    neck=dict(
        type='hrformer_mm.TokenPoseNeck',
        in_channels=48,
        out_channels=17,
        heatmap_size=(64, 48),
        patch_size=(4, 3),
        dim=192,
        hidden=576,
        depths=(8, 8, 8),
        heads=12),
    head=dict(in_channels=17, final_layer=None))
