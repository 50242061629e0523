# Runtime settings of all classification configs.
_base_ = '../runtime.py'
default_scope = 'mmpretrain'

default_hooks = dict(
    labels=dict(type='hrformer_mm.LabelRangeHook'),
    checkpoint=dict(interval=1, save_best='accuracy/top1'),
    visualization=dict(type='VisualizationHook', enable=False))
visualizer = dict(
    type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
randomness = dict(seed=0, diff_rank_seed=True)  # GPUs must not mix alike
sync_bn = None  # the official classification code normalises on each GPU
val_cfg = dict()
test_cfg = dict()
