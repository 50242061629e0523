# The feed-forward without its depth-wise convolution (Table 7).
_base_ = './hrformer_t_lspet_112x112.py'

model = dict(backbone=dict(ffn='nodw'))
