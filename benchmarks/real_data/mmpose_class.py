# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Train our HRFormer-T and MMPose's class side by side on lspet.

Both start from the same weights and see the same batches, by one recipe, so
their curves differ by rounding only. Images are 96x96: MMPose's class needs
multiples of 32. Writes the losses, metrics and their differences as JSON, and
a figure. The same command continues an interrupted comparison.
"""
import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

from hrformer_mm.engine.train import read_config
from hrformer_mm.registry import MODELS
from hrformer_mm.visualization import curves
from hrformer_mm.visualization.figures import new_figure

from ..backbone.report import describe_machine
from ..backbone.subjects import mmpose_extra
from .run import HERE, ROOT, check_call, write_result

CONFIG = ROOT / 'configs/pose/hrformer_t_lspet_112x112.py'
SIZE = 96
NAMES = dict(ours='hrformer_mm.HRFormer', theirs='mmpose.HRFormer')


def change(value: Any, rule: Callable[[str, Any], Any], key: str = '') -> Any:
    """Return nested dicts and lists with changed leaves."""
    if isinstance(value, dict):
        return {k: change(v, rule, k) for k, v in value.items()}
    if isinstance(value, list):
        return [change(v, rule, key) for v in value]
    return rule(key, value)


def resized(key: str, value: Any) -> Any:
    sizes = dict(input_size=(SIZE, SIZE), heatmap_size=(SIZE // 4, SIZE // 4))
    return sizes.get(key, value)


def make_configs(work_dir: Path, epochs: int, seed: int) -> dict[str, Path]:
    """Write both configs, and the weights with which both start."""
    cfg = Config(change(read_config(str(CONFIG)).to_dict(), resized))
    cfg.train_cfg.max_epochs = epochs
    cfg.default_hooks.logger.interval = 10
    start = work_dir.resolve() / f'start_seed{seed}.pth'
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')  # it lists every parameter otherwise
    model.init_weights()
    logger.setLevel(level)
    torch.save(dict(state_dict=model.state_dict()), start)
    cfg.model.init_cfg = dict(type='Pretrained', checkpoint=str(start))
    paths = {name: work_dir / f'{name}.py' for name in NAMES}
    cfg.dump(paths['ours'])
    extra = mmpose_extra('tiny')
    extra['stage4']['multiscale_output'] = False
    cfg.model.backbone = dict(type=NAMES['theirs'], extra=extra)
    cfg.dump(paths['theirs'])
    return paths


def difference(runs: dict[str, curves.LoggedRun], key: str) -> float:
    """Return the largest relative difference of a curve of both runs."""
    ours, theirs = (dict(runs[name].points[key]) for name in NAMES)
    return max(abs(ours[at] - theirs[at]) / max(abs(theirs[at]), 1e-6)
               for at in ours.keys() & theirs.keys())


def draw(runs: dict[str, curves.LoggedRun]):
    figure = new_figure(9, 3.6)
    for axes, key in zip(figure.subplots(1, 2), ('loss', 'PCK')):
        for name, style in zip(NAMES, ('-', '--')):
            at, values = zip(*runs[name].points[key])
            axes.plot(at, values, style, label=NAMES[name])
        axes.set(xlabel='iteration', title=key)
        axes.grid(alpha=.3)
        axes.legend(frameon=False)
    return figure


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Train both networks and return their curves and differences."""
    args.work_dir.mkdir(parents=True, exist_ok=True)
    runs = {}
    for name, path in make_configs(args.work_dir, args.epochs,
                                   args.seed).items():
        folder = args.work_dir / f'{name}_seed{args.seed}'
        folder.mkdir(exist_ok=True)
        check_call([
            sys.executable, str(ROOT / 'tools/train.py'), str(path),
            '--resume', '--work-dir', str(folder), '--data-root',
            str(args.data_root / 'lspet'), '--cfg-options',
            f'randomness.seed={args.seed}', *args.cfg_options
        ], folder / 'output.log')  # yapf: disable
        runs[name] = curves.read_run(str(folder), NAMES[name])
    keys = [key for key in ('loss', 'PCK', 'tPCK')
            if key in runs['ours'].points]
    if args.figure:
        args.figure.parent.mkdir(parents=True, exist_ok=True)
        draw(runs).savefig(args.figure)
    return dict(
        command='python -m benchmarks.real_data.mmpose_class --data-root DATA '
        f'--epochs {args.epochs} --seed {args.seed}',
        input=[SIZE, SIZE],
        curves={NAMES[name]: {key: runs[name].points[key] for key in keys}
                for name in NAMES},
        largest_relative_difference={
            key: difference(runs, key) for key in keys},
        machine=describe_machine(torch.device('cpu')))  # yapf: disable


def main(argv: Sequence[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--data-root',
        type=Path,
        required=True,
        help='folder that holds lspet/')
    parser.add_argument('--epochs', type=int, default=2)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/mmpose_class'),
        help='folder for logs and checkpoints (default: %(default)s)')
    parser.add_argument(
        '--out', type=Path, default=HERE / 'mmpose_class.json')
    parser.add_argument(
        '--figure', type=Path, default=HERE / 'figures/mmpose_class.png')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='changes to both configs')
    args = parser.parse_args(argv)
    data = args.data_root / 'lspet'
    if not data.is_dir():
        parser.error(f'--data-root: {data} does not exist; '
                     'docs/small-data.md says where it comes from')
    try:
        content = compare(args)
    except (FileNotFoundError, RuntimeError, ValueError) as error:
        raise SystemExit(f'error: {error}')
    write_result(args.out, content)
    print(json.dumps(content['largest_relative_difference'], indent=1))


if __name__ == '__main__':
    main()
