# Your own label maps: images/{train,val}/NAME.jpg, and for each of them
# labels/{train,val}/NAME.png with the number of its class in every pixel.
_base_ = './short_520.py'

data_root = 'data/labels/'
train_dataloader = dict(
    dataset=dict(
        type='BaseSegDataset',
        data_root=data_root,
        data_prefix=dict(
            img_path='images/train', seg_map_path='labels/train')))
val_dataloader = dict(
    dataset=dict(
        type='BaseSegDataset',
        data_root=data_root,
        data_prefix=dict(img_path='images/val', seg_map_path='labels/val')))
test_dataloader = val_dataloader
