# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The benchmark: invalid arguments, result files, meaning of the figures."""
import json

import pytest
import torch
from helpers import ROOT
from torch import nn

from benchmarks.backbone import measure, report, subjects
from benchmarks.backbone.subjects import Case
from hrformer_mm.zoo.benchmark_table import benchmark_table

CPU = torch.device('cpu')
CASE = Case('tiny', (64, 64), 1, 'forward')


@pytest.fixture(scope='module')
def tool():
    from benchmarks.backbone import __main__ as module
    return module


def run(tool, out, *flags):
    tool.main(['--arch', 'tiny', '--size', '64x64', '96x64', '--batch', '1',
               '--mode', 'forward', '--subjects', 'mmpose', 'ours',
               'optimized', '--repeats', '2', '--device', 'cpu',
               '--out', str(out), *flags])  # yapf: disable


@pytest.fixture(scope='module')
def results(tool, tmp_path_factory):
    out = tmp_path_factory.mktemp('benchmark')
    run(tool, out)
    return out


@pytest.mark.slow
def test_results_contain_every_subject_of_every_case(results):
    held = json.loads((results / 'results.json').read_text())
    assert 'thread' in held['device'] and held['torch'] == torch.__version__
    assert '--subjects mmpose ours optimized' in held['command']
    assert [e['case']['size'] for e in held['results']] == [[64, 64], [96, 64]]
    for entry in held['results']:
        rows = entry['subjects']
        assert list(rows) == ['mmpose', 'ours', 'optimized']
        assert rows['mmpose']['ratio'] == 1
        assert all(r['seconds'] > 0 < r['peak_bytes'] for r in rows.values())
        assert 0 <= rows['ours']['difference'] < 1e-4
        # A 64 x 64 image of HRFormer-T costs 0.1 G multiply-adds and more.
        assert entry['bounds']['flops'] > 1e8
        assert entry['bounds']['products_seconds'] < rows['ours']['seconds']
    assert (results / 'sizes.png').stat().st_size > 1e4


@pytest.mark.slow
def test_a_stopped_run_is_continued(results, tool, monkeypatch, capsys):
    def fail(*args):
        raise AssertionError('measured again')

    monkeypatch.setattr(measure, 'compare', fail)
    run(tool, results)
    assert 'tiny 96x64 x1 forward fp32' in capsys.readouterr().out


@pytest.mark.slow
def test_results_of_another_machine_are_not_merged(results, tool, capsys):
    path = results / 'results.json'
    held = json.loads(path.read_text())
    other = results / 'other'
    other.mkdir()
    (other / 'results.json').write_text(
        json.dumps(dict(held, device='an abacus')))
    with pytest.raises(SystemExit):
        run(tool, other)
    assert 'another machine' in capsys.readouterr().err


def test_subjects_with_different_outputs_are_not_timed(monkeypatch):
    class Wrong(nn.Module):

        def forward(self, x):
            return [x.new_ones(1, 18, 16, 16)]

    monkeypatch.setitem(subjects.SUBJECTS, 'wrong', (True, lambda c: Wrong()))
    limits = measure.Limits(1e12, 1e11)
    with pytest.raises(RuntimeError, match='wrong differs from ours'):
        measure.compare(CASE, ['ours', 'wrong'], CPU, 2, limits)


def test_optimized_networks_are_not_trained():
    case = Case('tiny', (64, 64), 1, 'train')
    with pytest.raises(ValueError, match='cannot be trained'):
        subjects.build('optimized', case, CPU)


@pytest.mark.slow
def test_a_profile_lists_the_time_of_each_part(tool, capsys, monkeypatch):
    # Another process would spend seconds on its imports.
    monkeypatch.setattr(tool, 'alone', lambda function, *args: function(*args))
    tool.main(['--arch', 'tiny', '--size', '64x64', '--batch', '1', '--mode',
               'forward', '--profile', '--device', 'cpu'])  # yapf: disable
    rows = {}
    for line in capsys.readouterr().out.splitlines():
        cells = [cell.strip() for cell in line.split('|')]
        if len(cells) > 3 and '.' in cells[2]:
            rows[cells[1]] = [float(x) for x in cells[2:4]]
    *parts, whole = rows.values()
    assert len(parts) > 10 and 'mkldnn_convolution' in rows
    for total, column in zip(whole, zip(*parts)):
        assert total > 0
        assert sum(column) == pytest.approx(total, abs=1)  # rounded


def test_training_computes_every_gradient():
    case = Case('tiny', (64, 64), 2, 'train')
    step = measure.Step(
        subjects.build('ours', case, CPU), case, torch.randn(2, 3, 64, 64))
    step()
    assert all(p.grad is not None for p in step.model.parameters())


@pytest.mark.parametrize('power', [0.5, 1., 2.])
def test_the_exponent_of_growth_is_recovered(power):
    points = [(x, 3 * x**power) for x in (10., 100., 5000.)]
    assert report.exponent(points) == pytest.approx(power)


def test_traffic_counts_reads_and_writes_but_not_views():
    x = torch.ones(1000)
    with measure.Traffic() as traffic:
        x.view(10, 100).t()
        assert traffic.total == 0
        x + x
    assert traffic.total == 2 * 4000  # the same tensor is read once


@pytest.mark.parametrize('size', ['256', '256x', 'axb'])
def test_an_invalid_size_is_rejected(tool, size, capsys):
    with pytest.raises(SystemExit):
        tool.main(['--size', size])
    assert 'HEIGHTxWIDTH' in capsys.readouterr().err


def test_every_preset_has_known_subjects_that_support_it(tool):
    for preset in tool.PRESETS.values():
        for case, names in preset:
            assert set(names) <= set(subjects.SUBJECTS)
            if case.mode == 'train':
                assert not set(names) & set(subjects.INFERENCE_ONLY)


def test_the_docs_show_every_file_of_results():
    page = (ROOT / 'docs/benchmarks.md').read_text()
    files = list((ROOT / 'benchmarks/backbone/results').glob('*.json'))
    assert files
    for path in files:
        name = path.relative_to(ROOT)
        table = benchmark_table(path)
        assert f'<!-- table: ../{name} -->\n\n{table}' in page


# Other runtimes


def test_runtimes_run_our_graph_and_that_of_mmpose(tool):
    names = ['onnxruntime', 'openvino', 'openvino-bf16', 'openvino-int8']
    assert list(subjects.RUNTIMES) == names + [f'mmpose-{n}' for n in names]
    compared = {name for preset in ('runtimes', 'runtimes-grid')
                for _, names in tool.PRESETS[preset] for name in names}
    assert {'mmpose', 'optimized-bf16', *subjects.RUNTIMES} == compared - {
        'ours', 'optimized'}
    grid = {(c.arch, c.batch, c.threads)
            for c, _ in tool.PRESETS['runtimes-grid']}
    assert grid == {(a, b, t) for a in ('small', 'base') for b in (1, 4, 16)
                    for t in (1, 2)}  # yapf: disable


@pytest.mark.parametrize('count, text', [(1, '1 thread'), (2, '2 threads')])
def test_a_case_names_its_threads(count, text):
    case = Case('tiny', (64, 64), 1, 'forward', threads=count)
    assert str(case) == f'{CASE} {text}'


def test_networks_with_a_head_have_equal_heatmaps():
    case = Case('tiny', (64, 64), 1, 'forward', heatmaps=True)
    assert str(case) == f'{CASE} heatmaps'
    x = torch.randn(1, 3, 64, 64)
    found = [measure.Step(subjects.build(name, case, CPU), case, x).forward()
             for name in ('mmpose', 'ours', 'optimized')]
    for maps in found:
        assert [y.shape for y in maps] == [(1, 17, 16, 16)]
        assert measure.difference(maps, found[0]) < 1e-4
    with pytest.raises(ValueError, match='hrnet_w32 has no heatmaps'):
        subjects.build('hrnet_w32', case, CPU)


@pytest.mark.slow
def test_networks_in_other_runtimes_are_compared(tool, tmp_path):
    for package in ('openvino', 'nncf', 'onnxruntime', 'onnxscript'):
        pytest.importorskip(package)
    run(tool, tmp_path, '--size', '64x64', '--threads', '1', '--subjects',
        'mmpose', *(n for n in subjects.RUNTIMES if 'bf16' not in n))
    entry, = json.loads((tmp_path / 'results.json').read_text())['results']
    assert entry['case']['threads'] == 1
    found = {name: row['difference']
             for name, row in entry['subjects'].items()}
    for name in ('onnxruntime', 'openvino', 'mmpose-onnxruntime',
                 'mmpose-openvino'):
        assert found[name] < 1e-4
    for name in ('openvino-int8', 'mmpose-openvino-int8'):
        assert 1e-4 < found[name] < 1
