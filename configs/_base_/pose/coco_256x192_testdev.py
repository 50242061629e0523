# Tests on test-dev, whose answers only the evaluation server of COCO has: the
# predictions go into OUTFILE_PREFIX.keypoints.json, which the row names.
_base_ = './coco_256x192.py'

test_dataloader = dict(
    dataset=dict(
        ann_file='annotations/image_info_test-dev2017.json',
        bbox_file=f'{_base_.data_root}person_detection_results/'
        'COCO_test-dev2017_detections_AP_H_609_person.json',
        data_prefix=dict(img='test2017/')))
test_evaluator = dict(format_only=True)
