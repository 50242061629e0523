# CrowdPose; boxes of test are those of a detector. AP by its own sigmas,
# without areas, and by crowdedness.
_base_ = './coco_256x192.py'

data_root = 'data/crowdpose/'
data = dict(
    type='CrowdPoseDataset',
    data_root=data_root,
    data_prefix=dict(img='images/'))
head = dict(out_channels=14, decoder=_base_.codec)
best = dict(save_best='crowdpose/AP')
train_dataloader = dict(
    dataset=dict(data, ann_file='annotations/mmpose_crowdpose_trainval.json'))
val_dataloader = dict(
    dataset=dict(
        data,
        ann_file='annotations/mmpose_crowdpose_test.json',
        bbox_file=f'{data_root}annotations/det_for_crowd_test_0.1_0.5.json'))
test_dataloader = val_dataloader
val_evaluator = dict(
    ann_file=f'{data_root}annotations/mmpose_crowdpose_test.json',
    use_area=False,
    iou_type='keypoints_crowd',
    prefix='crowdpose')
test_evaluator = val_evaluator
