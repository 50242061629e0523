# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Paths, and how a config row is made small enough to train in a test."""
from itertools import count
from pathlib import Path
from typing import Any, Dict, Optional, Union

from mmengine.config import Config
from mmengine.runner import Runner

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'configs'
SHARED = ROOT.parent / 'shared'  # may be absent; tests that use it skip

runs = count()


def drop_pretrained(cfg: Any):
    """Remove ``init_cfg`` of type Pretrained from all levels."""
    children = cfg.values() if isinstance(cfg, dict) else cfg
    for child in children:
        if isinstance(child, (dict, list)):
            drop_pretrained(child)
    if isinstance(cfg, dict) and isinstance(cfg.get('init_cfg'), dict):
        if cfg['init_cfg'].get('type') == 'Pretrained':
            cfg['init_cfg'] = None


def shorten(cfg: Config):
    """Two iterations in batches of 2, then one evaluation of 4 samples."""
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[name].update(
            batch_size=2, num_workers=0, persistent_workers=False)
        cfg[name].dataset.indices = 4
    if cfg.train_cfg.get('max_iters'):
        cfg.train_cfg.update(max_iters=2, val_interval=2)
    else:
        cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.default_hooks.logger.interval = 1


def tiny_row(config: Union[str, Path],
             work_dir: Path,
             data_root: Optional[Path] = None,
             **options: Any) -> Config:
    """A row that trains for 2 iterations on CPU and evaluates.

    In full precision, from scratch, without workers and synchronised norms.

    Args:
        config: Path of the row, absolute or below ``configs``.
        work_dir: For logs and checkpoints.
        data_root: Takes the place of the row's ``data_root``, wherever the
            row uses it.
        **options: Merged last, as ``--cfg-options`` does it; write dotted
            keys as ``**{'model.backbone.arch': 'tiny'}``.
    """
    cfg = Config.fromfile(CONFIGS / config)
    if data_root is not None:
        from hrformer_mm.training import set_data_root
        set_data_root(cfg, str(data_root))
    drop_pretrained(cfg.model)
    shorten(cfg)
    cfg.optim_wrapper.type = 'OptimWrapper'
    for key in ('dtype', 'loss_scale'):
        cfg.optim_wrapper.pop(key, None)
    cfg.sync_bn = None
    cfg.env_cfg.dist_cfg.backend = 'gloo'
    cfg.work_dir = str(work_dir)
    # Runners share what has the same name within a process.
    cfg.experiment_name = f'{Path(config).stem}_{next(runs)}'
    cfg.visualizer.name = cfg.experiment_name
    cfg.merge_from_dict(options)
    return cfg


def run_row(cfg: Config) -> Runner:
    """Train as a config says; see :func:`last_scalars` for the results."""
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def last_scalars(runner: Runner) -> Dict[str, float]:
    """Last value of all that was logged, such as ``val/coco/AP``."""
    return {
        name: buffer.current()
        for name, buffer in runner.message_hub.log_scalars.items()
    }
