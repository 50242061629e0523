# COCO-WholeBody 1.0: body, feet, face and hands; boxes as for COCO.
_base_ = './coco_256x192.py'

data_root = 'data/coco/'
data = dict(type='CocoWholeBodyDataset', data_root=data_root)
head = dict(out_channels=133, decoder=_base_.codec)
best = dict(save_best='coco-wholebody/AP')
train_dataloader = dict(
    dataset=dict(
        data,
        ann_file='annotations/coco_wholebody_train_v1.0.json',
        data_prefix=dict(img='train2017/')))
val_dataloader = dict(
    dataset=dict(
        data,
        ann_file='annotations/coco_wholebody_val_v1.0.json',
        data_prefix=dict(img='val2017/'),
        bbox_file=f'{data_root}person_detection_results/'
        'COCO_val2017_detections_AP_H_56_person.json'))
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoWholeBodyMetric',
    ann_file=f'{data_root}annotations/coco_wholebody_val_v1.0.json')
test_evaluator = val_evaluator
