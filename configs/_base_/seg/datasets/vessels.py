# Vessels of the retina: one logit for two classes, and sliding windows in
# tests. The metric is the Dice coefficient.
_base_ = './resize_crop.py'

head = dict(
    num_classes=2,
    out_channels=1,
    threshold=0.5,
    loss_decode=dict(_delete_=True, type='hrformer_mm.PixelCrossEntropyLoss'))
best = dict(save_best='mDice')
train_dataloader = dict(
    dataset=dict(
        data_prefix=dict(
            img_path='images/training', seg_map_path='annotations/training')))
val_dataloader = dict(
    dataset=dict(
        data_prefix=dict(
            img_path='images/validation',
            seg_map_path='annotations/validation')))
test_dataloader = val_dataloader
val_evaluator = dict(iou_metrics=['mDice'])
test_evaluator = val_evaluator
