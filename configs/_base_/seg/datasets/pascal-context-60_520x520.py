# PASCAL-Context with the background as a class.
_base_ = './pascal-context_520x520.py'

head = dict(num_classes=60)
train_dataloader = dict(dataset=dict(type='PascalContextDataset'))
val_dataloader = dict(dataset=dict(type='PascalContextDataset'))
test_dataloader = val_dataloader
