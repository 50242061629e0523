# Shifted windows instead of the depth-wise convolution (Table 9).
_base_ = './hrformer_t_lspet_112x112_nodw.py'

model = dict(backbone=dict(attention='shifted'))
