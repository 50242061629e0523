# The quickstart: HRFormer-T with a small head, from scratch.
_base_ = [
    '../_base_/seg/models/hrformer_t.py',
    '../_base_/seg/datasets/scenes_112x224.py',
    '../_base_/seg/schedules/schedule_minutes.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(drop_path_rate=0., init_cfg=None),
    decode_head=dict(channels=64, ocr_channels=32, **_base_.head))
