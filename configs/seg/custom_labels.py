# Your own label maps: copy this file and put your classes into it. README.md
# has the layout of the data, tools/check_dataset.py reports errors.
_base_ = [
    '../_base_/seg/models/hrformer_s.py',
    '../_base_/seg/datasets/labels_520x520.py',
    '../_base_/seg/schedules/schedule_80k.py',
]
classes = ('background', 'object')  # 0 and 1 in the files; 255 is ignored
palette = [(60, 60, 60), (230, 120, 40)]  # red, green, blue, to draw with
dataset = dict(
    img_suffix='.jpg', metainfo=dict(classes=classes, palette=palette))

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=dict(num_classes=len(classes)))
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
