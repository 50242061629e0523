# HRFormer-B on COCO-Stuff 10k, windows of 15 (Table 5).
_base_ = './hrformer_b_coco-stuff_520x520.py'

model = dict(backbone=dict(window_size=15))
