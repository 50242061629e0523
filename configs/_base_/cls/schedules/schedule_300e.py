# Section 4.1 of the paper: 300 epochs with AdamW in batches of 1024.
_base_ = '../runtime.py'
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
optim_wrapper = dict(
    type='hrformer_mm.AmpOptimWrapper',
    constructor='hrformer_mm.QuietConstructor',
    optimizer=dict(
        type='AdamW', lr=1e-3, betas=(0.9, 0.999), eps=1e-8,
        weight_decay=0.05),
    # Biases and norms do not decay; relative position bias tables do.
    paramwise_cfg=dict(flat_decay_mult=0.),
    clip_grad=dict(max_norm=5.))
param_scheduler = dict(
    type='hrformer_mm.WarmupCosineLR', warmup=20, start_ratio=1e-3,
    end_ratio=1e-2, by_epoch=True, convert_to_iter_based=True)
auto_scale_lr = dict(base_batch_size=1024)
