_base_ = './hrformer_s_horse10-split1_256x256.py'

train_dataloader = dict(
    dataset=dict(ann_file='annotations/horse10-train-split3.json'))
val_dataloader = dict(
    dataset=dict(ann_file='annotations/horse10-test-split3.json'))
test_dataloader = val_dataloader
