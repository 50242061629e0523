# Windows of 15, background included.
_base_ = './hrformer_b_pascal-context-60_520x520.py'

model = dict(backbone=dict(window_size=15, drop_path_rate=0.3))
