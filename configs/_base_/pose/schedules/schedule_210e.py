# The released recipe: AdamW for 210 epochs, evaluated every tenth. Norms and
# biases decay too; only the tables of relative positions do not.
_base_ = '../runtime.py'

optim_wrapper = dict(
    type='hrformer_mm.AmpOptimWrapper',
    constructor='hrformer_mm.QuietConstructor',
    optimizer=dict(
        type='AdamW', lr=5e-4, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(
        custom_keys={'relative_position_bias_table': dict(decay_mult=0.)}))
param_scheduler = [
    # Full at iteration 500; mmengine reaches it one before the end.
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, end=501),
    dict(type='MultiStepLR', milestones=[170, 200], gamma=0.1),
]
train_cfg = dict(by_epoch=True, max_epochs=210, val_interval=10)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=256)  # 8 GPUs, 32 on each
