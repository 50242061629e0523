# A fly from above with 32 keypoints (DeepPoseKit's example), whole images of
# 192x192 in COCO's format; whole windows of 7 on the two finest maps.
_base_ = './openfield_252x336.py'

data_root = 'data/fly/'
codec = dict(
    type='UDPHeatmap', input_size=(196, 196), heatmap_size=(49, 49), sigma=1.5)
task = dict(head=dict(out_channels=32, decoder=codec))
crop = dict(
    type='TopdownAffine', input_size=codec['input_size'], use_udp=True)
train_dataloader = dict(
    dataset=dict(
        type='FlyDataset',
        data_root=data_root,
        metainfo=None,
        pipeline=[
            *_base_.load, _base_.augment[0], _base_.turn, crop,
            dict(type='GenerateTarget', encoder=codec), _base_.pack
        ]))
val_dataloader = dict(
    dataset=dict(
        type='FlyDataset',
        data_root=data_root,
        metainfo=None,
        pipeline=[*_base_.load, crop, _base_.pack]))
test_dataloader = val_dataloader
