# PoseTrack18; boxes of val are those of a detector. AP is COCO's, for the
# metric of the dataset, PoseTrack18Metric, needs the package poseval.
_base_ = './coco_256x192.py'

data_root = 'data/posetrack18/'
data = dict(
    type='PoseTrack18Dataset', data_root=data_root, data_prefix=dict(img=''))
head = dict(decoder=_base_.codec)
train_dataloader = dict(
    dataset=dict(data, ann_file='annotations/posetrack18_train.json'))
val_dataloader = dict(
    dataset=dict(
        data,
        ann_file='annotations/posetrack18_val.json',
        bbox_file=f'{data_root}annotations/'
        'posetrack18_val_human_detections.json',
        filter_cfg=dict(bbox_score_thr=0.4)))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=f'{data_root}annotations/posetrack18_val.json')
test_evaluator = val_evaluator
