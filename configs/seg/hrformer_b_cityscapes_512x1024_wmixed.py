# Windows that shrink from branch to branch (appendix). The paper's tuple is
# unknown; this one has as many parameters as its model.
_base_ = './hrformer_b_cityscapes_512x1024.py'

model = dict(backbone=dict(window_size=(21, 15, 9, 4)))
