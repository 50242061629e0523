# Shifted windows instead of the depth-wise convolution (Table 9).
_base_ = './hrformer_t_pascal-context_520x520_nodw.py'

model = dict(
    backbone=dict(
        attention='shifted',
        init_cfg=dict(checkpoint='hrformer_t_imagenet_224_nodw_shift.pth')))
