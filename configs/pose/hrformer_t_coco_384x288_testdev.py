# Writes OUTFILE_PREFIX.keypoints.json for the evaluation server of COCO.
_base_ = './hrformer_t_coco_384x288.py'

test_dataloader = dict(
    dataset=dict(
        ann_file='annotations/image_info_test-dev2017.json',
        bbox_file=f'{_base_.data_root}person_detection_results/'
        'COCO_test-dev2017_detections_AP_H_609_person.json',
        data_prefix=dict(img='test2017/')))
test_evaluator = dict(
    format_only=True,
    outfile_prefix='work_dirs/hrformer_t_coco_384x288_testdev/test-dev2017')
