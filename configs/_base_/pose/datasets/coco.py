# COCO 2017 keypoints; boxes of val are those of the detector with 56.4 AP.
# The fragments beside this one add the input size and what follows from it.
data_root = 'data/coco/'
load = [dict(type='LoadImage'), dict(type='GetBBoxCenterScale')]
augment = [
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    # P(N(0, 1) < 0.5), as the released code draws it, to keep the upper half
    dict(type='RandomHalfBody', prob=0.3, upper_prioritized_prob=0.6915),
    dict(type='hrformer_mm.RandomScaleRotation'),
]
pack = dict(type='PackPoseInputs')

train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        ann_file='annotations/person_keypoints_train2017.json',
        data_prefix=dict(img='train2017/')))
val_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        ann_file='annotations/person_keypoints_val2017.json',
        bbox_file=f'{data_root}person_detection_results/'
        'COCO_val2017_detections_AP_H_56_person.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True))
test_dataloader = val_dataloader
testdev = dict(  # the test data of the evaluation server
    ann_file='annotations/image_info_test-dev2017.json',
    bbox_file=f'{data_root}person_detection_results/'
    'COCO_test-dev2017_detections_AP_H_609_person.json',
    data_prefix=dict(img='test2017/'))
val_evaluator = dict(
    type='CocoMetric', nms_mode='oks_nms', nms_thr=0.9, keypoint_score_thr=0.2)
test_evaluator = val_evaluator
