# Your own images, in train/CLASS/ and val/CLASS/: copy this file and put your
# number of classes into it. tools/check_dataset.py reports errors.
_base_ = [
    '../_base_/cls/models/hrformer_s.py',
    '../_base_/cls/datasets/folder_224.py',
    '../_base_/cls/schedules/schedule_30e.py',
]
num_classes = 10  # as many as there are folders in train/
load_from = 'weights/hrt_small.pth'
model = dict(
    data_preprocessor=dict(num_classes=num_classes),
    head=dict(num_classes=num_classes),
    train_cfg=None)  # no mixing of images: few epochs do not need it
