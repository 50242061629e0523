# HRFormer-B on COCO-Stuff 164k, windows of 15.
_base_ = './hrformer_b_coco-stuff-164k_520x520.py'

model = dict(backbone=dict(window_size=15))
