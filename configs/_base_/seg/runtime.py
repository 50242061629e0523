# Runtime settings of all segmentation configs, for MMSegmentation.
_base_ = '../runtime.py'

default_scope = 'mmseg'
default_hooks = dict(
    labels=dict(type='hrformer_mm.LabelRangeHook'),
    logger=dict(log_metric_by_epoch=False),  # there are none
    checkpoint=dict(by_epoch=False, save_best='mIoU', rule='greater'),
    visualization=dict(type='SegVisualizationHook', draw=False))
log_processor = dict(by_epoch=False)
visualizer = dict(
    type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
randomness = dict(seed=304, diff_rank_seed=True)
tta_model = dict(type='hrformer_mm.LogitsTTAModel')
