# HRNet's length ("2x") with the optimizer of the segmentation recipe: AdamW;
# neither biases, norms nor tables of relative positions decay.
_base_ = '../runtime.py'

optim_wrapper = dict(
    type='hrformer_mm.AmpOptimWrapper',
    constructor='hrformer_mm.FewGroupsConstructor',
    optimizer=dict(
        type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(
        norm_decay_mult=0.,
        bias_decay_mult=0.,
        custom_keys={'relative_position_bias_table': dict(decay_mult=0.)}))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, end=500),
    dict(type='MultiStepLR', milestones=[16, 22], gamma=0.1),
]
train_cfg = dict(by_epoch=True, max_epochs=24, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=16)  # 8 GPUs, 2 on each
