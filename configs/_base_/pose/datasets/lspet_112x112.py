# Leeds Sports Pose Extended in COCO's format, cropped to one person an image;
# boxes of val are labelled. At 112x112 the finest map is whole windows of 7.
_base_ = './coco.py'
from hrformer_mm.datasets.keypoint_metainfo import make_metainfo  # noqa: E402

data_root = 'data/lspet/'
names = ('right_ankle', 'right_knee', 'right_hip', 'left_hip', 'left_knee',
         'left_ankle', 'right_wrist', 'right_elbow', 'right_shoulder',
         'left_shoulder', 'left_elbow', 'left_wrist', 'neck', 'head_top')
links = (('right_ankle', 'right_knee'), ('right_knee', 'right_hip'),
         ('left_ankle', 'left_knee'), ('left_knee', 'left_hip'),
         ('right_wrist', 'right_elbow'), ('right_elbow', 'right_shoulder'),
         ('left_wrist', 'left_elbow'), ('left_elbow', 'left_shoulder'),
         ('right_shoulder', 'neck'), ('left_shoulder', 'neck'),
         ('right_hip', 'left_hip'), ('neck', 'head_top'))
sigmas = (.089, .087, .107, .107, .087, .089, .062, .072, .079, .079, .072,
          .062, .079, .079)  # CrowdPose's, which has the same keypoints
metainfo = make_metainfo(names, links, sigmas, 'lspet')
codec = dict(
    type='UDPHeatmap', input_size=(112, 112), heatmap_size=(28, 28), sigma=1.5)
crop = dict(
    type='TopdownAffine', input_size=codec['input_size'], use_udp=True)
train_dataloader = dict(
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/person_keypoints_train.json',
        data_prefix=dict(img='images/train/'),
        metainfo=metainfo,
        pipeline=[
            *_base_.load, _base_.augment[0], _base_.augment[2], crop,
            dict(type='GenerateTarget', encoder=codec), _base_.pack
        ]))
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/person_keypoints_val.json',
        data_prefix=dict(img='images/val/'),
        metainfo=metainfo,
        bbox_file=None,
        pipeline=[*_base_.load, crop, _base_.pack]))
test_dataloader = val_dataloader
# Share of keypoints closer than 0.2 of right shoulder to left hip, or of the
# longer side of the box.
val_evaluator = dict(
    _delete_=True, type='hrformer_mm.TorsoPCK', thr=0.2, torso=(8, 3))
test_evaluator = val_evaluator
