# Batches for one GPU of eight, the metric, and the scales and flips of --tta.
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True))
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
views = dict(
    type='TestTimeAug',
    transforms=[
        [
            dict(type='hrformer_mm.ScaleAligned', scale=scale)
            for scale in (0.75, 1., 1.25)
        ],
        [dict(type='RandomFlip', prob=prob) for prob in (0., 1.)],
        [dict(type='LoadAnnotations')],
        [dict(type='PackSegInputs')],
    ])
