# DPT on PASCAL-Context, with MMSegmentation's recipe for ADE20K.
_base_ = [
    '../_base_/seg/models/dpt_vit-b.py',
    '../_base_/seg/datasets/pascal-context_480x480.py',
    '../_base_/seg/schedules/schedule_80k.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=dict(num_classes=59))
optim_wrapper = dict(optimizer=dict(lr=6e-5))
auto_scale_lr = dict(base_batch_size=16)  # 8 GPUs, 2 on each
