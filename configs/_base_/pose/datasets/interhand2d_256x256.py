# InterHand2.6M: both hands in one crop, 42 keypoints projected from 3D ones.
_base_ = './hands_256x256.py'

data_root = 'data/interhand2.6m/'
head = dict(out_channels=42)
train_dataloader = dict(
    dataset=dict(
        type='InterHand2DDoubleDataset',
        data_root=data_root,
        ann_file='annotations/all/InterHand2.6M_train_data.json',
        camera_param_file='annotations/all/InterHand2.6M_train_camera.json',
        joint_file='annotations/all/InterHand2.6M_train_joint_3d.json',
        data_prefix=dict(img='images/train/')))
val_dataloader = dict(
    dataset=dict(
        type='InterHand2DDoubleDataset',
        data_root=data_root,
        ann_file='annotations/machine_annot/InterHand2.6M_val_data.json',
        camera_param_file='annotations/machine_annot/'
        'InterHand2.6M_val_camera.json',
        joint_file='annotations/machine_annot/'
        'InterHand2.6M_val_joint_3d.json',
        data_prefix=dict(img='images/val/')))
test_dataloader = dict(
    dataset=dict(
        type='InterHand2DDoubleDataset',
        data_root=data_root,
        ann_file='annotations/all/InterHand2.6M_test_data.json',
        camera_param_file='annotations/all/InterHand2.6M_test_camera.json',
        joint_file='annotations/all/InterHand2.6M_test_joint_3d.json',
        data_prefix=dict(img='images/test/')))
