# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The cost model of GPUs, and the costs that must not grow unnoticed."""
import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.backbone.report import Results
from benchmarks.gpu_cost import __main__ as tool
from benchmarks.gpu_cost import count as counting
from benchmarks.gpu_cost.count import DEVICE, GPUS, Counter, count, move
from hrformer_mm.core import HRFormer
from hrformer_mm.core.arch import get_arch
from hrformer_mm.deploy import optimize

FP32 = torch.float32


class Layers(nn.Module):
    """Layers whose cost is known: a product, a norm and their sum."""

    def __init__(self):
        super().__init__()
        self.product, self.norm = nn.Linear(8, 16), nn.BatchNorm1d(16)

    def forward(self, x):
        y = self.product(x)
        return y.view(2, 8, 16).flatten(0, 1) + self.norm(y)


def cost_of(model, shape, training=False):
    with FakeTensorMode():
        move(model)
        x = torch.empty(shape, device=DEVICE)

        def step():
            y = model(x)
            return y.square().sum() if training else y

        return count(model, step, training, FP32)


def test_launches_bytes_and_operations_are_those_of_each_layer():
    cost = cost_of(Layers(), (16, 8))
    y = 16 * 16 * 4  # bytes
    assert [(c.op, c.module, c.flops) for c in cost.launches] == [
        ('addmm', 'product', 2 * 16 * 8 * 16),
        (cost.launches[1].op, 'norm', 0), ('add', '', 0)]
    assert cost.launches[0].bytes == 4 * (16 * 8 + 8 * 16 + 16) + y
    assert 2 * y <= cost.launches[1].bytes <= 2 * y + 8 * 16 * 4
    assert cost.launches[2].bytes == 3 * y


def test_a_backward_pass_is_counted_by_module():
    cost = cost_of(Layers(), (16, 8), training=True)
    norm = [c for c in cost.launches if 'batch_norm' in c.op]
    assert [c.module for c in norm] == ['norm', 'norm']
    y = 16 * 16 * 4
    assert norm[0].bytes >= 3 * y and norm[1].bytes >= 5 * y
    assert [c.op for c in cost.launches if c.module == 'product'].count(
        'mm') == 1  # the gradient of the weight; images need none


def test_gradients_of_convolutions_are_launches_of_their_own():
    conv = nn.Conv2d(4, 8, 3, padding=1, groups=4)
    cost = cost_of(nn.Sequential(nn.ReLU(), conv), (2, 4, 5, 6), True)
    x, y, weight = 2 * 4 * 30 * 4, 2 * 8 * 30 * 4, 8 * 9 * 4
    found = [c for c in cost.launches if c.op == 'convolution_backward']
    assert [c.bytes for c in found] == [y + x + weight, y + 8 * 4]
    assert found[0].flops == 2 * (2 * 8 * 30) * 9


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_counts_products_in_half_precision(dtype):
    layers = nn.Sequential(
        nn.Conv2d(8, 8, 3), nn.Flatten(0, 2), nn.Linear(6, 8, bias=False))
    with FakeTensorMode():
        move(layers)
        x = torch.empty(2, 8, 6, 8, device=DEVICE).to(
            memory_format=torch.channels_last)
        with counting.as_on_a_gpu(), torch.autocast('cuda', dtype):
            y = layers[0](x)
        cost = count(layers, lambda: layers(x), False, dtype)
    products = [c for c in cost.launches if c.flops]
    assert [c.dtype for c in products] == [dtype, dtype]
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_predicted_time_is_the_slowest_of_launch_traffic_and_products():
    gpu = GPUS['H100']

    def seconds(moved, flops):
        return counting.Launch('', '', moved, flops, FP32).seconds(gpu)

    assert seconds(1, 1) == gpu.launch
    assert seconds(3 * 10**12, 1) == pytest.approx(1)
    assert seconds(1, 2 * gpu.flops[FP32]) == pytest.approx(2)


def test_the_counter_leaves_modules_as_they_were():
    call = nn.Module.__call__
    with pytest.raises(ZeroDivisionError), Counter(nn.Identity()):
        1 / 0
    assert nn.Module.__call__ is call


def with_few_blocks(arch: str) -> HRFormer:
    """Build a network of a size with one block in every branch."""
    size = get_arch(arch)
    with torch.device('meta'):
        return HRFormer(
            dict(channels=size.channels, heads=size.heads, blocks=1,
                 modules=(1, 1, 1)), upsample='bilinear')  # yapf: disable


# A little above the figures of today: launches, and megabytes for a batch of
# 32 images of 256x192.
CEILINGS = {
    'ours': (248, 14_800),
    'optimized': (248, 14_800),
    'training': (1_140, 64_200),
}


@pytest.mark.parametrize('subject', CEILINGS)
def test_costs_do_not_grow(subject):
    model = with_few_blocks('base')
    if subject == 'optimized':
        model = optimize(model)
    with FakeTensorMode():
        move(model)
        x = torch.empty(32, 3, 256, 192, device=DEVICE)
        training = subject == 'training'

        def step():
            maps = model(x)
            return sum(y.square().mean() for y in maps) if training else maps

        cost = count(model, step, training, FP32)
    launches, megabytes = CEILINGS[subject]
    assert len(cost.launches) <= launches
    assert cost.bytes <= megabytes * 1e6


def tables() -> dict[tuple[str, ...], tuple[int, float]]:
    """Read launches and gigabytes from the tables of benchmarks/README.md.

    Keys are network, code, step, precision and kernels.
    """
    text = Path(tool.__file__).parents[1].joinpath('README.md').read_text()
    found = {}
    kernels = ''
    for line in text.splitlines():
        if '--kernels' in line:
            kernels = line.split('--kernels')[1].split()[0]
        cells = [cell.strip() for cell in line.strip('|').split('|')]
        if kernels and line.startswith(('| base', '| small')):
            found[(*cells[:4], kernels)] = (
                int(cells[4].replace(',', '')), float(cells[5]))
    return found


TABLES = tables()
BOUNDS = {
    ('base', 'ours', 'forward', 'fp32', 'plain'): (970, 56),
    ('small', 'ours', 'forward', 'fp32', 'plain'): (930, 24),
    ('base', 'optimized', 'forward', 'fp32', 'triton'): (560, 38),
    ('small', 'optimized', 'forward', 'fp32', 'triton'): (520, 17),
}


def test_costs_are_within_the_projects_bounds():
    assert len(TABLES) == 28
    for key, (launches, gigabytes) in BOUNDS.items():
        assert TABLES[key][0] <= launches and TABLES[key][1] <= gigabytes, key
    for network in ('base', 'small'):
        ours = TABLES[network, 'ours', 'train', 'fp32', 'triton']
        theirs = TABLES[network, 'mmpose', 'train', 'fp32', 'plain']
        assert ours[0] <= .6 * theirs[0] and ours[1] <= .65 * theirs[1]


@pytest.mark.slow
@pytest.mark.parametrize('row', TABLES, ids='-'.join)
def test_networks_cost_what_the_tables_say(row):
    """Rounding apart, and 1% for operations of other releases of PyTorch."""
    network, subject, mode, dtype, kernels = row
    if subject == 'mmpose':
        pytest.importorskip('mmpose')
    cost = tool.measure(network, subject, (256, 192), 32, mode,
                        tool.DTYPES[dtype], kernels=kernels)
    launches, gigabytes = TABLES[row]
    assert len(cost.launches) == pytest.approx(launches, rel=.01)
    assert cost.bytes == pytest.approx(1e9 * gigabytes, rel=.01)
    if row in BOUNDS:
        assert len(cost.launches) <= BOUNDS[row][0]
        assert cost.bytes <= 1e9 * BOUNDS[row][1]


@pytest.mark.slow
def test_the_command_saves_a_table_and_a_plot(tmp_path, capsys):
    pytest.importorskip('mmpose')
    tool.main(['tiny', '--size', '64x64', '--batch', '2', '--details',
               '--mode', 'forward', '--out', str(tmp_path)])  # yapf: disable
    found = json.loads((tmp_path / 'results.json').read_text())['entries']
    assert [e['subject'] for e in found] == list(tool.SUBJECTS)
    for e in found:
        assert sum(p['bytes'] for p in e['parts'].values()) == e['bytes']
        assert 'branch 3: attention' in e['parts'] and '' not in e['parts']
    assert (tmp_path / 'parts.png').stat().st_size > 1000
    assert 'predicted' in capsys.readouterr().out


def test_measured_times_are_printed_beside_predicted_ones(
        tmp_path, capsys, monkeypatch):
    """The results are those that the benchmark saves, with their kernels."""
    seen = []

    def measure(*args):
        seen.append(args)
        return counting.Cost([counting.Launch('', '', 3 * 10**9, 1, FP32)])

    monkeypatch.setattr(tool, 'measure', measure)
    path = tmp_path / 'train-bf16-triton' / 'results.json'
    case = dict(arch='tiny', size=(64, 64), batch=2, mode='train',
                dtype='bf16', window=7)
    Results(path, dict(kernels='triton')).add(
        dict(case=case, subjects=dict(ours=dict(seconds=.5),
                                      timm_swin_t=dict(seconds=.1))))
    tool.main(['--measured', str(path)])
    row = capsys.readouterr().out.splitlines()[2]
    assert row.split()[1::2][:1] == ['train-bf16-triton']
    assert [w for w in row.split() if '.' in w] == ['500.0', '1.0', '0.7']
    assert seen == [('tiny', 'ours', (64, 64), 2, 'train', torch.bfloat16, 7,
                     'triton')]


def test_unknown_networks_are_refused(capsys):
    with pytest.raises(SystemExit):
        tool.main(['huge'])
    assert 'neither a config nor one of tiny' in capsys.readouterr().err


@pytest.mark.parametrize('batch, size', [(0, (64, 64)), (1, (64, -1))])
def test_empty_images_are_refused(batch, size):
    with pytest.raises(ValueError, match='must be at least 1'):
        tool.measure('tiny', 'ours', size, batch, 'forward', FP32)


@pytest.mark.parametrize('content', ['[1]', '{}', 'no JSON'])
def test_other_files_than_results_are_refused(content, tmp_path, capsys):
    path = tmp_path / 'results.json'
    path.write_text(content)
    with pytest.raises(SystemExit) as error:
        tool.main(['--measured', str(path)])
    assert error.value.code == 2
    assert 'is not a results.json' in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize('task', ['cls', 'pose', 'seg', 'det'])
def test_every_config_is_counted(task):
    from hrformer_mm import zoo
    names = [n for n in zoo.config_files() if n.startswith(f'configs/{task}')]
    seen = set()
    for name in names:
        path = zoo.root() / name
        model = str(Config.fromfile(path).model)
        if model not in seen:
            seen.add(model)
            cost = tool.measure(
                str(path), 'ours', zoo.input_size(name), 1, 'forward', FP32)
            assert len(cost.launches) > 50, name
    assert len(seen) > 3
