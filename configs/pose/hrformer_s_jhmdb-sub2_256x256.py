_base_ = './hrformer_s_jhmdb-sub1_256x256.py'

train_dataloader = dict(dataset=dict(ann_file='annotations/Sub2_train.json'))
val_dataloader = dict(dataset=dict(ann_file='annotations/Sub2_test.json'))
test_dataloader = val_dataloader
