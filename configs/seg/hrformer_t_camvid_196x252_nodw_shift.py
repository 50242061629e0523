# Shifted windows instead of the depth-wise convolution (Table 9).
_base_ = './hrformer_t_camvid_196x252_nodw.py'

model = dict(backbone=dict(attention='shifted'))
