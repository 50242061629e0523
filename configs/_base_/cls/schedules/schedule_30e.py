# Fine-tuning: 30 epochs from the weights of ImageNet, for which a tenth of
# the learning rate is enough.
_base_ = './schedule_300e.py'
train_cfg = dict(max_epochs=30)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = dict(warmup=3)
auto_scale_lr = dict(base_batch_size=64)
