# The official recipe: AdamW with warm-up and polynomial decay, stepped every
# iteration. Neither biases, norms nor tables of relative positions decay.
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
param_scheduler = dict(
    type='hrformer_mm.WarmupPolyLR',
    warmup=1500,
    start_ratio=1e-6,
    power=0.9,
    by_epoch=False)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=80000, val_interval=1000)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(checkpoint=dict(interval=1000))
auto_scale_lr = dict(base_batch_size=8)  # 8 GPUs, 1 on each
