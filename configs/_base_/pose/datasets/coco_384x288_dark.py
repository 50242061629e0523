# DARK: targets and decoding without rounding to pixels (CVPR 2020).
# The blur is that of sigma 3, as in the paper of DARK.
_base_ = './coco_384x288.py'

codec = dict(_base_.codec, unbiased=True, blur_kernel_size=17)
target = dict(type='GenerateTarget', encoder=codec)

train_dataloader = dict(
    dataset=dict(pipeline=[
        *_base_.load, *_base_.augment, _base_.crop, target, _base_.pack
    ]))
