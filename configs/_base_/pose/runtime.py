# Runtime settings of all pose configs, for MMPose.
_base_ = '../runtime.py'

default_scope = 'mmpose'
# MMPoseInferencer asks for these two.
data_mode = 'topdown'
dataset_type = 'CocoDataset'
default_hooks = dict(
    checkpoint=dict(interval=1, save_best='coco/AP', rule='greater'),
    visualization=dict(type='PoseVisualizationHook', enable=False))
log_processor = dict(
    type='LogProcessor', window_size=50, by_epoch=True, num_digits=6)
visualizer = dict(
    type='hrformer_mm.PoseVisualizer',
    vis_backends=[dict(type='LocalVisBackend')])
