_base_ = [
    '../_base_/seg/models/hrformer_t.py',
    '../_base_/seg/datasets/camvid_196x252.py',
    '../_base_/seg/schedules/schedule_minutes.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(drop_path_rate=0., init_cfg=None),
    decode_head=dict(num_classes=11, channels=64, ocr_channels=32))
train_cfg = dict(max_iters=1200, val_interval=400)
