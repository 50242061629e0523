# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Overfit a config on a few images of its training data (sanity check).

Trains from scratch, without augmentation, and evaluates on the same images. If
model, loss, data pipeline and metric work together, the metric reaches the
target. This finds errors before a long training does. Exits with code 1 if the
metric does not reach the target.
"""
import copy
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from hrformer_mm.engine.train import merge_options, read_config, set_data_root
from hrformer_mm.quickstart.runner import HISTORY, LOG, fit_and_evaluate
from hrformer_mm.tasks import best_metric, get_task
from hrformer_mm.utils import cli
from hrformer_mm.utils.config import bare_name
from hrformer_mm.utils.config_checks import check_inputs
from hrformer_mm.utils.io import read_history, write_json
from hrformer_mm.utils.redirect import redirect_output

EXAMPLES = """example, on four images in a separate COCO file:
  python -m benchmarks.overfit configs/pose/hrformer_t_coco_256x192.py \\
      --data-root data/coco_mini --cfg-options \\
      train_dataloader.dataset.ann_file=person_keypoints.json \\
      train_dataloader.dataset.data_prefix.img=images/
"""


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


def disable_regularization(cfg: Config, iters: int, lr: float):
    """Train from scratch, without anything that prevents overfitting."""
    cfg.model.backbone.update(init_cfg=None, drop_path_rate=0.)
    if 'flip_test' in cfg.model.get('test_cfg', {}):
        cfg.model.test_cfg.flip_test = False  # mirrored images are unseen
    cfg.optim_wrapper.type = 'OptimWrapper'
    cfg.optim_wrapper.optimizer.update(lr=lr, weight_decay=0.)
    warmup = max(iters // 20, 1)
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=warmup),
        dict(type='CosineAnnealingLR', by_epoch=False, begin=warmup,
             end=iters, T_max=iters - warmup),
    ]  # yapf: disable
    # Batch norm statistics settle only at the end of the cosine schedule, so
    # intermediate metrics mean little.
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
            data_root: str | None = None,
            iters: int = 100,
            batch_size: int = 12,
            lr: float = 1e-3,
            cfg_options: dict | None = None,
            target: float | None = None) -> dict[str, Any]:
    """Train a config on its training images and evaluate on the same ones.

    The metric is that of ``save_best``, else the headline metric of the task.

    Args:
        config: Path of the config.
        work_dir: Folder for the log, the last weights and ``overfit.json``.
        data_root: Folder of the dataset. Default: that of the config.
        iters: Number of iterations.
        batch_size: Number of images in a batch.
        lr: Learning rate.
        cfg_options: Options merged into the config before it is simplified,
            for example to select other files.
        target: Value of the metric to reach. Default: that of the task.

    Returns:
        Settings and results, as in ``overfit.json``.

    Raises:
        FileNotFoundError: If data is missing.
        ValueError: If smaller values of the metric are better, and no target
            is given.
    """
    cfg = read_config(config)
    if data_root:
        set_data_root(cfg, data_root)
    merge_options(cfg, cfg_options)
    named, smaller_is_better = best_metric(cfg)
    use_few_images(cfg)
    disable_regularization(cfg, iters, lr)
    cfg.train_dataloader.batch_size = batch_size
    cfg.work_dir = work_dir
    check_inputs(cfg, 'train_dataloader', 'val_dataloader')
    task = get_task(cfg)
    metric = named or task.metric
    if target is None and smaller_is_better:
        raise ValueError(f'smaller values of {metric} are better; give the '
                         'value to reach by --target')
    target = task.overfit_target if target is None else target
    label = task.metric_label if metric == task.metric else metric
    Path(work_dir).mkdir(parents=True, exist_ok=True)
    stream = sys.stdout  # inside the block, sys.stdout is the log
    with redirect_output(Path(work_dir) / LOG):
        metrics = fit_and_evaluate(cfg, metric, label, stream)
    if metric not in metrics:
        raise ValueError(f'the evaluation has no {metric!r}; set default_hooks'
                         f'.checkpoint.save_best to one of {sorted(metrics)}')
    losses = [r['loss'] for r in read_history(Path(work_dir) / HISTORY)
              if 'loss' in r]
    value = metrics[metric]
    report = dict(config=config, metric=metric, value=value, target=target,
                  passed=value <= target if smaller_is_better else
                  value >= target, loss=losses[-1], iters=iters,
                  batch_size=batch_size, lr=lr, metrics=metrics)
    write_json(Path(work_dir) / 'overfit.json', report, indent=2)
    return report


def parse_args(argv=None) -> Namespace:
    parser = cli.dataset_parser(__doc__, EXAMPLES)
    parser.add_argument(
        '--work-dir',
        help='new folder for the results (default: work_dirs/overfit_NAME)')
    parser.add_argument(
        '--iters',
        type=int,
        default=100,
        help='number of iterations (default: 100)')
    parser.add_argument(
        '--batch-size',
        type=int,
        default=12,
        help='number of images in a batch (default: 12)')
    parser.add_argument(
        '--lr', type=float, default=1e-3, help='learning rate (default: 1e-3)')
    parser.add_argument(
        '--target',
        type=float,
        help='value of the metric to reach for exit code 0 (default: that of '
        'the task)')
    return parser.parse_args(argv)


@cli.one_line_errors
def main(argv=None):
    args = parse_args(argv)
    work_dir = args.work_dir or f'work_dirs/overfit_{Path(args.config).stem}'
    if Path(work_dir).exists() and any(Path(work_dir).iterdir()):
        raise ValueError(f'{work_dir} is not empty; give a new --work-dir')
    report = overfit(args.config, work_dir, args.data_root, args.iters,
                     args.batch_size, args.lr, args.cfg_options, args.target)
    print(f"{report['metric']} {report['value']:.3f} on the training images "
          f"after {args.iters} iterations, target {report['target']}; "
          f"loss {report['loss']:.4g}; see {work_dir}/overfit.json")
    raise SystemExit(not report['passed'])


if __name__ == '__main__':
    main()
