# Tests on OCHuman, whose people occlude each other, with labelled boxes; it
# has no images to train on, so training and validation are on COCO.
_base_ = './coco_256x192.py'

ochuman_root = 'data/ochuman/'
head = dict(decoder=_base_.codec)
test_dataloader = dict(
    dataset=dict(
        type='OCHumanDataset',
        data_root=ochuman_root,
        ann_file='annotations/'
        'ochuman_coco_format_test_range_0.00_1.00.json',
        data_prefix=dict(img='images/'),
        bbox_file=None))
test_evaluator = dict(ann_file=f'{ochuman_root}annotations/'
                      'ochuman_coco_format_test_range_0.00_1.00.json')
