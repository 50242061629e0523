# AI Challenger: 14 keypoints of people; boxes of val are labelled. AP does not
# use areas, which are not labelled.
_base_ = './coco_256x192.py'

data_root = 'data/aic/'
data = dict(type='AicDataset', data_root=data_root)
head = dict(out_channels=14, decoder=_base_.codec)
train_dataloader = dict(
    dataset=dict(
        data,
        ann_file='annotations/aic_train.json',
        data_prefix=dict(img='ai_challenger_keypoint_train_20170902/'
                         'keypoint_train_images_20170902/')))
val_dataloader = dict(
    dataset=dict(
        data,
        ann_file='annotations/aic_val.json',
        data_prefix=dict(img='ai_challenger_keypoint_validation_20170911/'
                         'keypoint_validation_images_20170911/'),
        bbox_file=None))
test_dataloader = val_dataloader
val_evaluator = dict(
    ann_file=f'{data_root}annotations/aic_val.json', use_area=False)
test_evaluator = val_evaluator
