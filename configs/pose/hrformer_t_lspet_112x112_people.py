# Starts from the backbone that tools/quickstart.sh trains on drawn people.
_base_ = './hrformer_t_lspet_112x112.py'

model = dict(
    backbone=dict(
        init_cfg=dict(
            _delete_=True,
            type='Pretrained',
            checkpoint='work_dirs/quickstart_pose/epoch_3.pth')))
