# Animal-Pose: cats, cows, dogs, horses and sheep.
_base_ = './animals_256x256.py'

data_root = 'data/animalpose/'
data = dict(type='AnimalPoseDataset', data_root=data_root)
head = dict(out_channels=20)
train_dataloader = dict(
    dataset=dict(data, ann_file='annotations/animalpose_train.json'))
val_dataloader = dict(
    dataset=dict(data, ann_file='annotations/animalpose_val.json'))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=f'{data_root}annotations/animalpose_val.json')
test_evaluator = val_evaluator
