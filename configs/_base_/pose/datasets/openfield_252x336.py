# DeepLabCut's openfield demo in COCO's format: the whole image is the box, as
# DeepLabCut's networks see it. The finest map is whole windows of 7.
_base_ = './coco.py'
from hrformer_mm.datasets.keypoint_metainfo import make_metainfo  # noqa: E402

data_root = 'data/mouse_openfield/'
names = ('snout', 'left_ear', 'right_ear', 'tail_base')
links = (('snout', 'left_ear'), ('snout', 'right_ear'),
         ('left_ear', 'tail_base'), ('right_ear', 'tail_base'))
metainfo = make_metainfo(names, links, 0.05, 'openfield')
codec = dict(
    type='UDPHeatmap', input_size=(336, 252), heatmap_size=(84, 63), sigma=1.5)
task = dict(  # for the models trained on this dataset
    head=dict(
        out_channels=4, decoder=codec, loss=dict(loss_weight=1000.)),
    test_cfg=dict(shift_heatmap=False))
crop = dict(
    type='TopdownAffine', input_size=codec['input_size'], use_udp=True)
load = [dict(type='LoadImage'), dict(type='GetBBoxCenterScale', padding=1.)]
turn = dict(  # animals look in all directions and stay in the image
    type='hrformer_mm.RandomScaleRotation',
    scale_factor=.25,
    rotate_factor=60.)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img='images/train/'),
        ann_file='annotations/keypoints_train_wholeimage.json',
        metainfo=metainfo,
        pipeline=[
            *load, _base_.augment[0], turn, crop,
            dict(type='GenerateTarget', encoder=codec), _base_.pack
        ]))
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img='images/val/'),
        bbox_file=None,
        ann_file='annotations/keypoints_val_wholeimage.json',
        metainfo=metainfo,
        pipeline=[*load, crop, _base_.pack]))
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='EPE')  # in pixels of the image
test_evaluator = val_evaluator
