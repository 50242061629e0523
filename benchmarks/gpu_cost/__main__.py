# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Predict launches, memory traffic and time on a GPU, without one.

Networks run on a pretended GPU; count.py says what is counted and what the
predicted time leaves out. Saves results.json and a plot of the parts of the
networks in --out. Code that torch.compile makes is left out: Inductor reports
its fusions only where it can compile for a GPU.
"""
import argparse
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from hrformer_mm import zoo
from hrformer_mm.core import ARCHS
from hrformer_mm.core.kernels import set_kernels
from hrformer_mm.deploy import optimize
from hrformer_mm.engine.run_config import read_config
from hrformer_mm.models.backbones import HRFormer
from hrformer_mm.utils.cli import EPILOG, one_line_errors
from hrformer_mm.utils.costs import tensors_of
from hrformer_mm.utils.markdown import markdown_table
from hrformer_mm.utils.paths import configs_by_name
from hrformer_mm.zoo import flops
from hrformer_mm.zoo.benchmark_table import read_results
from hrformer_mm.zoo.entries import NumbersStay

from ..backbone.__main__ import POSE, image_size
from ..backbone.report import case_of, commit
from ..backbone.subjects import DTYPES, MODES, mmpose_extra
from .count import DEVICE, GPUS, Cost, Launch, count, move

SUBJECTS = ('mmpose', 'ours', 'optimized')


def peer_of(model: Any) -> nn.Module | None:
    """Build MMPose's HRFormer like one of ours, if it has such a one."""
    names = [name for name, arch in ARCHS.items() if arch == model.arch]
    windows = set(model.window_size[:len(model.arch.channels)])
    plain = (model.ffn, model.attention, model.block) == (
        'dwconv', 'window', 'transformer')
    if not (names and plain and len(windows) == 1):
        return None
    from mmpose.models.backbones import HRFormer as Peer
    extra = mmpose_extra(names[0], windows.pop(), model.rel_pos_bias)
    extra['stage4']['multiscale_output'] = len(model.out_indices) > 1
    return Peer(extra, norm_cfg=dict(type='BN'))


def replace_backbone(model: nn.Module) -> nn.Module | None:
    """Put MMPose's class in place of ours, or return None."""
    inner = getattr(model, 'backbone', model)
    peer = peer_of(inner) if isinstance(inner, HRFormer) else None
    if peer is None or inner is model:
        return peer
    model.backbone = peer
    return model


def build(subject: str, model: nn.Module,
          dtype: torch.dtype) -> nn.Module | None:
    """Return the network of a subject, made of our model on any device."""
    if subject == 'optimized':
        return optimize(model, dtype)
    with torch.device('meta'), NumbersStay():
        return replace_backbone(model) if subject == 'mmpose' else model


def network(name: str, window: int) -> nn.Module:
    """Build the backbone of a size, or the model of a config, without values.

    The backbones upsample as MMPose's class does.
    """
    if name not in ARCHS:
        return zoo.build_model(read_config(name))
    with torch.device('meta'):
        return HRFormer(name, upsample='bilinear', window_size=window)


def measure(name: str, subject: str, size: Sequence[int], batch: int,
            mode: str, dtype: torch.dtype, window: int = 7,
            kernels: str | None = None) -> Cost | None:
    """Count a step of one network.

    A model of a config returns the outputs of its heads; the loss of a
    training step is their sum of squares. Images are padded as detectors pad
    them; the second stage of a detector gets a fixed number of regions, and
    how they are cut out of the maps is not counted.

    Returns:
        None if the subject has no such network, or cannot be trained.

    Raises:
        ValueError: If the size or the batch is not positive.
    """
    if min(batch, *size) < 1:
        raise ValueError('batch, height and width must be at least 1, got '
                         f'{(batch, *size)}')
    training = mode == 'train'
    model = network(name, window)
    size = flops.padded_shape(model, size)
    found = None if training and subject == 'optimized' else build(
        subject, model, dtype)
    if found is None:
        return None
    # An optimized network computes in the precision of its weights.
    amp = torch.float32 if subject == 'optimized' else dtype
    if kernels is not None:
        set_kernels(found, kernels)
    with FakeTensorMode():
        move(found)
        x = torch.empty(batch, 3, *size, device=DEVICE)

        def step() -> Any:
            maps: list[Tensor] = list(tensors_of(flops.run_networks(found, x)))
            if not training:
                return maps
            return sum(y.float().square().mean() for y in maps)

        return count(found, step, training, amp)


def part_of(launch: Launch) -> str:
    """Name the part of the network that a launch belongs to."""
    path = re.sub(r'^backbone\.', '', launch.module)
    block = re.match(r'stage(\d)\.\d+\.branches\.(\d)(?:\.\d+\.(\w+))?', path)
    if block:
        stage, branch, layer = block.groups()
        kind = {'attn': 'attention', 'ffn': 'feed-forward'}.get(
            layer or '', 'norms, sums')
        return f'branch {branch}: {kind}'
    if 'fuse_layers' in path or 'transition' in path:
        return 'fusion, transitions'
    if re.match(r'(conv|bn)\d|layer1', path):
        return 'stem, stage 1'
    return path.split('.')[0] or 'rest'


def summary(cost: Cost) -> dict[str, Any]:
    return dict(
        launches=len(cost.launches),
        bytes=cost.bytes,
        flops=sum(launch.flops for launch in cost.launches),
        predicted_seconds={
            name: cost.seconds(gpu) for name, gpu in GPUS.items()
        })


def entry(cost: Cost) -> dict[str, Any]:
    """Describe a cost, also by operation and by part of the network."""
    split = dict(operations=lambda launch: launch.op, parts=part_of)
    return dict(summary(cost), **{
        key: {name: summary(c) for name, c in cost.by(function).items()}
        for key, function in split.items()})


def table(entries: Sequence[dict[str, Any]]) -> str:
    """Format the totals of networks."""
    rows = [[e['network'], e['subject'], e['mode'], e['dtype'],
             f'{e["launches"]:,}', f'{e["bytes"] / 1e9:.1f}',
             *(f'{1e3 * e["predicted_seconds"][gpu]:.1f}' for gpu in GPUS)]
            for e in entries]
    return markdown_table(
        ['network', 'code', 'step', 'precision', 'launches', 'GB',
         *(f'predicted ms, {gpu}' for gpu in GPUS)], rows)


def details(found: dict[str, Any], key: str) -> str:
    """Format the operations or the parts of a network."""
    rows = [[name, f'{c["launches"]:,}', f'{c["bytes"] / 1e9:.2f}',
             *(f'{1e3 * c["predicted_seconds"][gpu]:.2f}' for gpu in GPUS)]
            for name, c in found[key].items()]
    return markdown_table(
        [key, 'launches', 'GB', *(f'predicted ms, {gpu}' for gpu in GPUS)],
        rows)


def plot(entries: Sequence[dict[str, Any]], path: Path):
    """Plot the bytes and the launches of the parts of each network."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    names = list(dict.fromkeys(p for e in entries for p in e['parts']))
    figure, both = plt.subplots(
        1, 2, figsize=(13, 1.5 + .45 * len(entries)), layout='constrained',
        sharey=True)
    labels = [' '.join(e[k] for k in ('network', 'subject', 'mode', 'dtype'))
              for e in entries]
    for axes, key, unit in zip(both, ('bytes', 'launches'), (1e9, 1)):
        left = [0.] * len(entries)
        for i, name in enumerate(names):
            sizes = [e['parts'].get(name, {}).get(key, 0) / unit
                     for e in entries]
            axes.barh(labels, sizes, left=left, label=name,
                      color=plt.get_cmap('tab20')(i % 20))
            left = [a + b for a, b in zip(left, sizes)]
    both[0].set_xlabel('GB read and written')
    both[1].set_xlabel('launches')
    both[0].invert_yaxis()
    both[1].legend(fontsize=7)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.gpu_cost', description=__doc__,
        epilog=EPILOG)
    parser.add_argument(
        'networks', nargs='*', default=['base', 'small'],
        help=f'sizes of the backbone ({", ".join(ARCHS)}), names or paths of '
        'configs, or "all" for every config (default: base small)')
    parser.add_argument(
        '--size', type=image_size, metavar='HEIGHTxWIDTH',
        help='image size (default: 256x192, or that of the config)')
    parser.add_argument(
        '--batch', type=int, default=32, help='batch size (default: 32)')
    parser.add_argument(
        '--mode', nargs='+', choices=MODES, default=['forward'],
        help='inference, or forward and backward pass (default: forward)')
    parser.add_argument(
        '--dtype', nargs='+', choices=list(DTYPES), default=['fp32'],
        help='precision; half precision uses autocast (default: fp32)')
    parser.add_argument(
        '--subjects', nargs='+', choices=SUBJECTS, default=list(SUBJECTS),
        help='implementations (default: all)')
    parser.add_argument(
        '--kernels', choices=('triton', 'plain'),
        help='fused kernels or plain operations (default: as '
        'HRFORMER_MM_KERNELS says)')
    parser.add_argument(
        '--measured', nargs='+', type=Path, metavar='RESULTS.JSON',
        help='print times that benchmarks.backbone measured beside those '
        'predicted, and exit')
    parser.add_argument(
        '--details', action='store_true',
        help='print operations and parts of each network')
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/gpu_cost'),
        help='folder for results.json and parts.png (default: %(default)s)')
    args = parser.parse_args(argv)  # yapf: disable
    if args.networks == ['all']:
        args.networks = [str(zoo.root() / p) for p in zoo.config_files()]
    for name in args.networks:
        if not (name in {*ARCHS, *configs_by_name()} or Path(name).is_file()):
            parser.error(f'{name!r} is neither a config nor one of '
                         f'{", ".join(ARCHS)}')
    return args


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Count all networks; results are saved after each."""
    args.out.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    grid = itertools.product(args.networks, args.mode, args.dtype,
                             args.subjects)
    for name, mode, dtype, subject in grid:
        size = args.size or (POSE if name in ARCHS else zoo.input_size(name))
        cost = measure(name, subject, size, args.batch, mode, DTYPES[dtype],
                       kernels=args.kernels)
        if cost is None:
            continue
        entries.append(dict(
            network=Path(name).stem, subject=subject, mode=mode, dtype=dtype,
            size=list(size), batch=args.batch, kernels=args.kernels,
            **entry(cost)))
        (args.out / 'results.json').write_text(json.dumps(
            dict(torch=torch.__version__, commit=commit(), entries=entries),
            indent=1), encoding='utf-8')
    return entries


def compare(paths: Sequence[Path]) -> str:
    """Format measured times of the backbone benchmark beside predictions.

    Networks that this tool cannot count are left out.
    """
    rows = []
    for path in paths:
        held = read_results(path)
        for measured in held['results']:
            case = case_of(measured)
            for subject in set(SUBJECTS) & set(measured['subjects']):
                cost = measure(case.arch, subject, case.size, case.batch,
                               case.mode, DTYPES[case.dtype], case.window,
                               held.get('kernels'))
                if cost is None:
                    continue
                found = measured['subjects'][subject]['seconds']
                rows.append([path.parent.name, str(case), subject,
                             f'{1e3 * found:.1f}',
                             *(f'{1e3 * cost.seconds(gpu):.1f}'
                               for gpu in GPUS.values())])
    return markdown_table(
        ['run', 'case', 'code', 'measured ms',
         *(f'predicted ms, {gpu}' for gpu in GPUS)], sorted(rows))


@one_line_errors
def main(argv: Sequence[str] | None = None):
    args = parse_args(argv)
    if args.measured:
        print(compare(args.measured))
        return
    entries = run(args)
    plot(entries, args.out / 'parts.png')
    print(table(entries))
    if args.details:
        for e in entries:
            for key in ('operations', 'parts'):
                print(f'{e["network"]}, {e["subject"]}, {e["mode"]}\n\n'
                      f'{details(e, key)}')
    print(f'predicted, not measured; details: {args.out}')


if __name__ == '__main__':
    main()
