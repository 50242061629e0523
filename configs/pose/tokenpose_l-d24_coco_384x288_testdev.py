# Whether Table 4 has this row is unknown.
_base_ = [
    '../_base_/pose/tokenpose_l-d24.py',
    '../_base_/pose/coco_384x288_udp-dark_testdev.py',
    '../_base_/pose/schedule_300e.py',
]

model = dict(
    neck=dict(heatmap_size=(96, 72), patch_size=(6, 4)),
    head=dict(decoder=_base_.codec),
    test_cfg=dict(shift_heatmap=False))
train_dataloader = dict(batch_size=8)
test_evaluator = dict(outfile_prefix='work_dirs/'
                      'tokenpose_l-d24_coco_384x288_testdev/test-dev2017')
