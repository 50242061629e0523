# AP-10K, 54 species, first split.
_base_ = './animals_256x256.py'

data_root = 'data/ap10k/'
data = dict(
    type='AP10KDataset', data_root=data_root, data_prefix=dict(img='data/'))
train_dataloader = dict(
    dataset=dict(data, ann_file='annotations/ap10k-train-split1.json'))
val_dataloader = dict(
    dataset=dict(data, ann_file='annotations/ap10k-val-split1.json'))
test_dataloader = dict(
    dataset=dict(data, ann_file='annotations/ap10k-test-split1.json'))
val_evaluator = dict(ann_file=f'{data_root}annotations/ap10k-val-split1.json')
test_evaluator = dict(
    ann_file=f'{data_root}annotations/ap10k-test-split1.json')
