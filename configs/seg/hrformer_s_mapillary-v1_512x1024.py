_base_ = [
    '../_base_/seg/models/hrformer_s.py',
    '../_base_/seg/datasets/mapillary-v1_512x1024.py',
    '../_base_/seg/schedules/schedule_240k.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size), decode_head=_base_.head)
