# HRFormer-T on handwritten digits, to see it learn within minutes.
_base_ = [
    '../_base_/cls/models/hrformer_t.py',
    '../_base_/cls/datasets/digits_64.py',
    '../_base_/cls/schedules/schedule_300e.py',
]
model = dict(
    data_preprocessor=dict(num_classes=10), head=dict(num_classes=10),
    train_cfg=None)  # no mixing: minutes are too short for it
train_cfg = dict(max_epochs=5)
param_scheduler = dict(warmup=1)
