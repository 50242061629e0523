_base_ = [
    '../_base_/seg/models/hrformer_s.py',
    '../_base_/seg/datasets/stare_128x128.py',
    '../_base_/seg/schedules/schedule_40k_b16.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=_base_.head,
    test_cfg=_base_.slide)
default_hooks = dict(checkpoint=_base_.best)
