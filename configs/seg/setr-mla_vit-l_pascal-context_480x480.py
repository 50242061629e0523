# SETR-MLA on PASCAL-Context (Table 5), with MMSegmentation's recipe for
# ADE20K; it has none for these data.
_base_ = [
    '../_base_/seg/models/setr-mla_vit-l.py',
    '../_base_/seg/datasets/pascal-context_480x480.py',
    '../_base_/seg/schedules/schedule_80k_sgd.py',
]

model = dict(data_preprocessor=dict(size=_base_.crop_size))
optim_wrapper = dict(
    optimizer=dict(lr=0.001, weight_decay=0.),
    paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=10.)}))
auto_scale_lr = dict(base_batch_size=16)  # 8 GPUs, 2 on each
