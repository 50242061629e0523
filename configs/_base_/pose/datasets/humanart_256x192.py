# Human-Art: people in photographs and in art; its annotations name images from
# the folder above. Boxes of val are those of a detector.
_base_ = './coco_256x192.py'

data_root = 'data/'
data = dict(
    type='HumanArtDataset', data_root=data_root, data_prefix=dict(img=''))
head = dict(decoder=_base_.codec)
train_dataloader = dict(
    dataset=dict(
        data, ann_file='HumanArt/annotations/training_humanart_coco.json'))
val_dataloader = dict(
    dataset=dict(
        data,
        ann_file='HumanArt/annotations/validation_humanart.json',
        bbox_file=f'{data_root}HumanArt/person_detection_results/'
        'HumanArt_validation_detections_AP_H_56_person.json'))
test_dataloader = val_dataloader
val_evaluator = dict(
    ann_file=f'{data_root}HumanArt/annotations/validation_humanart.json')
test_evaluator = val_evaluator
