# HRFormer-B on PASCAL-Context, windows of 15 (Table 5).
_base_ = './hrformer_b_pascal-context_520x520.py'

model = dict(backbone=dict(window_size=15, drop_path_rate=0.3))
