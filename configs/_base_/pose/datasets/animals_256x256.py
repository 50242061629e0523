# Half bodies are cut out of animals, too. Boxes are those of the labels.
_base_ = './square_256x256.py'

train_dataloader = dict(
    dataset=dict(
        pipeline=[*_base_.load, *_base_.augment, _base_.crop, *_base_.finish]))
