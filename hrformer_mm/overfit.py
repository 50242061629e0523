# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Train a row on a handful of images until it knows them by heart.

A model, loss, data pipeline and metric that belong together can do so; where
they do not, this tells it before a long training does.
"""
import copy
import sys
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from mmengine.config import Config

from .checks import check_inputs
from .config_types import bare_name
from .quickstart.common import HISTORY, LOG, aside, fit_and_evaluate
from .quickstart.progress import read_history
from .textio import write_json
from .training import merge_options, read_config, set_data_root

# Of each framework: its metric, what to call it, and when it is known by
# heart. Segmentation and classification count in percent.
METRICS = dict(
    mmpose=('coco/AP', 'AP', 0.9),
    mmseg=('mIoU', 'mIoU', 90.),
    mmpretrain=('accuracy/top1', 'top-1', 99.))


def is_random(transform: Mapping[str, Any]) -> bool:
    """Whether a transform augments, by its name."""
    name = bare_name(transform['type'])
    return 'Random' in name or name == 'PhotoMetricDistortion'


def use_few_images(cfg: Config):
    """Train without augmentation, and evaluate on the same images."""
    train, val = cfg.train_dataloader, cfg.val_dataloader
    if cfg.default_scope == 'mmpretrain':  # its random crops also resize
        train.dataset.pipeline = copy.deepcopy(val.dataset.pipeline)
    train.dataset.pipeline = [
        t for t in train.dataset.pipeline if not is_random(t)
    ]
    same = copy.deepcopy(train.dataset)
    same.update(pipeline=val.dataset.pipeline, test_mode=True)
    val.dataset = same
    for loader in (train, val):
        loader.update(num_workers=0, persistent_workers=False)
        loader.pop('prefetch_factor', None)
    train.sampler = dict(type='InfiniteSampler', shuffle=True)
    cfg.test_dataloader = val


def learn_by_heart(cfg: Config, iters: int, lr: float):
    """From scratch, without anything that keeps from overfitting."""
    cfg.model.backbone.update(init_cfg=None, drop_path_rate=0.)
    if 'flip_test' in cfg.model.get('test_cfg', {}):
        cfg.model.test_cfg.flip_test = False  # mirror images are not learnt
    cfg.optim_wrapper.type = 'OptimWrapper'
    cfg.optim_wrapper.optimizer.update(lr=lr, weight_decay=0.)
    warmup = max(iters // 20, 1)
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=warmup),
        dict(type='CosineAnnealingLR', by_epoch=False, begin=warmup,
             end=iters, T_max=iters - warmup),
    ]  # yapf: disable
    # The statistics of batch norms need the cosine's quiet end, so a metric
    # in the middle says little.
    interval = max(iters // 5, 1)
    cfg.train_cfg = dict(
        type='IterBasedTrainLoop', max_iters=iters, val_interval=interval)
    cfg.log_processor = dict(cfg.get('log_processor', {}), by_epoch=False)
    cfg.default_hooks.checkpoint = dict(
        type='CheckpointHook', by_epoch=False, interval=iters)
    cfg.auto_scale_lr = None
    cfg.randomness = dict(seed=0)


def overfit(config: str,
            work_dir: str,
            data_root: Optional[str] = None,
            iters: int = 100,
            batch_size: int = 12,
            lr: float = 1e-3,
            cfg_options: Optional[dict] = None) -> Dict[str, Any]:
    """Train a row on its training images alone and evaluate on them.

    Args:
        config: Path of the row.
        work_dir: For the log, the last weights and ``overfit.json``.
        data_root: Instead of the row's.
        cfg_options: Merged into the row before it is simplified, to name
            other files than the row's own.

    Returns:
        What was trained and what came of it, as in ``overfit.json``.

    Raises:
        FileNotFoundError: For missing data.
    """
    cfg = read_config(config)
    if data_root:
        set_data_root(cfg, data_root)
    merge_options(cfg, cfg_options)
    use_few_images(cfg)
    learn_by_heart(cfg, iters, lr)
    cfg.train_dataloader.batch_size = batch_size
    cfg.work_dir = work_dir
    check_inputs(cfg, 'train_dataloader', 'val_dataloader')
    metric, label, target = METRICS[cfg.default_scope]
    Path(work_dir).mkdir(parents=True, exist_ok=True)
    stream = sys.stdout  # what is called this inside goes to the log
    with aside(Path(work_dir) / LOG):
        metrics = fit_and_evaluate(cfg, metric, label, stream)
    losses = [r['loss'] for r in read_history(Path(work_dir) / HISTORY)
              if 'loss' in r]
    report = dict(config=config, metric=metric, value=metrics[metric],
                  target=target, loss=losses[-1], iters=iters,
                  batch_size=batch_size, lr=lr, metrics=metrics)
    write_json(Path(work_dir) / 'overfit.json', report, indent=2)
    return report
