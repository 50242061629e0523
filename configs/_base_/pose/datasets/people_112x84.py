# Drawn people in the layout of COCO; boxes of val are those of the labels.
# At 112x84 the finest maps are whole windows of 7, so nothing is padded there.
_base_ = './coco.py'

data_root = 'data/people/'
codec = dict(
    type='UDPHeatmap', input_size=(84, 112), heatmap_size=(21, 28), sigma=1.25)
crop = dict(
    type='TopdownAffine', input_size=codec['input_size'], use_udp=True)
flip = dict(type='RandomFlip', prob=0.5, direction='horizontal')
target = dict(type='GenerateTarget', encoder=codec)

train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    dataset=dict(
        data_root=data_root,
        pipeline=[*_base_.load, flip, crop, target, _base_.pack]))
val_dataloader = dict(
    num_workers=2,
    dataset=dict(
        data_root=data_root,
        bbox_file=None,
        pipeline=[*_base_.load, crop, _base_.pack]))
test_dataloader = val_dataloader
