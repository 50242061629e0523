# Windows that shrink from branch to branch (appendix). The tuple of the paper
# is unknown; of those with its parameters, this is the cheapest.
_base_ = './hrformer_b_cityscapes_512x1024.py'

model = dict(backbone=dict(window_size=(21, 15, 9, 4)))
