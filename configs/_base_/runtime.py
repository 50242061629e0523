# Settings of all tasks; the runtime fragment of each task inherits this.
# The second import finds weights of any backbone by hrformer_mm://NAME.
custom_imports = dict(
    imports=['hrformer_mm', 'hrformer_mm.checkpoints.schemes'],
    allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='hrformer_mm.UpdateSchedulerHook'),
    checkpoint=dict(type='hrformer_mm.SafeCheckpointHook', max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    exact_resume=dict(type='hrformer_mm.ExactResumeHook'),
    compile=dict(type='hrformer_mm.CompileHook'),
    equal_buffers=dict(type='hrformer_mm.EqualBuffersHook'),
    accumulated_lr=dict(type='hrformer_mm.ScaleAccumulatedLRHook'),
    finite_loss=dict(type='hrformer_mm.StopAtNonFiniteLossHook'))
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))
log_level = 'INFO'
load_from = None
resume = False
sync_bn = 'torch'  # the official recipes train with synchronised norms
