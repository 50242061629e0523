# The feed-forward without its depth-wise convolution (Table 7).
_base_ = './hrformer_t_imagenet_224.py'

model = dict(backbone=dict(ffn='nodw'))
