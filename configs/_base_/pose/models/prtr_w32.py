# PRTR over HRNet-W32: 100 queries look for the keypoints of one person.
_base_ = './hrnet_w32.py'

model = dict(
    backbone=dict(out_indices=(0, 1, 2, 3)),
    head=dict(
        _delete_=True,
        type='hrformer_mm.PRTRHead',
        in_channels=(32, 64, 128, 256),
        out_channels=17),
    test_cfg=dict(_delete_=True, flip_test=True))
