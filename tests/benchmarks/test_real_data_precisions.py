# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Accuracy and speed of trained networks by runtime and precision."""
import json
from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from small_data import WRITERS

from benchmarks.backbone.measure import time_in_turns
from benchmarks.real_data import precisions
from hrformer_mm.engine.train import read_config
from hrformer_mm.zoo import study, tables

NAME = 'hrformer_t_fly_196x196_seed0'


def subject(value, ratio):
    return dict(images_per_second=10 * ratio, ratio=ratio,
                metrics=dict(PCK=value + .2, tPCK=value))


def test_the_table_has_metric_and_ratio_and_a_dash_for_int8_refused():
    trial = dict(
        config='pose/net_t', input=[112, 96],
        subjects={'torch': subject(.5, 1.), 'openvino': subject(.5, 2.),
                  'openvino-bf16': subject(.498, 3.456)})  # yapf: disable
    _, _, line = study.precision_table([trial]).splitlines()
    assert [cell.strip() for cell in line.split('|')[1:-1]] == [
        'net_t', '112x96', 'PCK@0.2 of the torso', '50.00, 1.00',
        '50.00, 2.00', '49.80, 3.46', '-']


def test_the_summary_has_speeds_and_accuracies_by_runtime():
    case = dict(case=dict(arch='small', batch=4, size=[256, 192]), subjects={
        name: subject(0, i + 1.) for i, name in enumerate(
            ('mmpose', 'ours', 'openvino', 'openvino-bf16'))})  # yapf: disable
    trial = dict(
        config='pose/hrformer_t_lspet_112x96', study='lspet', seed=0,
        subjects={'torch': subject(.5, 1.), 'openvino': subject(.5, 2.),
                  'openvino-bf16': subject(.498, 3.)})  # yapf: disable
    header, _, *lines = study.cpu_summary(
        [case], [trial, dict(trial, study='fly')]).splitlines()
    assert [[cell.strip() for cell in line.split('|')[1:-1]]
            for line in (header, *lines)] == [
        ['runtime', 'S, 4 of 256x192', 'HRFormer-T, lspet'],
        ["PyTorch, MMPose's class", '1.00', ''],
        ['PyTorch', '2.00', '50.00'],
        ['OpenVINO', '3.00', '50.00'],
        ['OpenVINO, bf16', '4.00', '49.80'],
        ['OpenVINO, int8', '-', '-']]  # yapf: disable


def test_the_table_without_results_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(study, 'root', lambda: tmp_path)
    assert tables.render('precisions') == 'No results yet.\n'


def test_networks_are_timed_in_turns():
    calls = []
    steps = {n: lambda n=n: calls.append(n) for n in 'ab'}
    times = time_in_turns(steps, torch.device('cpu'), 3, warm=False)
    assert ''.join(calls) == 'aabb' + 'ab' * 3
    assert {n: len(t) for n, t in times.items()} == dict(a=3, b=3)
    calls.clear()
    time_in_turns(steps, torch.device('cpu'), 2, warm=True)
    assert ''.join(calls) == 'aabb' + 'aabb' * 2


def test_the_last_checkpoint_is_found_in_a_folder_that_was_moved(tmp_path):
    with pytest.raises(FileNotFoundError, match='no trained network: run'):
        precisions.last_checkpoint(tmp_path)
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/epoch_3.pth')
    assert precisions.last_checkpoint(tmp_path) == tmp_path / 'epoch_3.pth'


@pytest.mark.parametrize('stderr, error, text', [
    ('notes\nerror: EPE: 2.00 in float32, 9.00 in int8: the loss is more than '
     '--max-drop 0.5', ValueError, 'EPE: 2.00'),
    ('error: no such file', RuntimeError, 'see .*int8.log')])
def test_int8_that_costs_too_much_is_no_failure(
        stderr, error, text, tmp_path, monkeypatch):
    monkeypatch.setattr(precisions.subprocess, 'run', lambda *_, **__: (
        SimpleNamespace(returncode=2, stdout='', stderr=stderr)))
    with pytest.raises(error, match=text):
        precisions.export_file(tmp_path, tmp_path, tmp_path / 'int8.xml', [])
    assert (tmp_path / 'int8.log').read_text() == stderr


@pytest.mark.slow
def test_a_network_is_exported_evaluated_and_timed(tmp_path):
    pytest.importorskip('mmpose')
    for package in ('onnx', 'onnxscript', 'openvino', 'nncf'):
        pytest.importorskip(package)
    WRITERS['fly'](tmp_path / 'fly')
    cfg = read_config(str(
        precisions.ROOT / 'configs/pose/hrformer_t_fly_196x196.py'))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpose'):
        model = MODELS.build(cfg.model)
    folder = tmp_path / 'work' / NAME
    folder.mkdir(parents=True)
    torch.save(dict(state_dict=model.state_dict()), folder / 'epoch_1.pth')
    (folder / 'last_checkpoint').write_text('epoch_1.pth')
    precisions.main([
        'fly', '--data-root', str(tmp_path), '--only', NAME, '--work-dir',
        str(tmp_path / 'work'), '--results', str(tmp_path / 'results'),
        '--samples', '2', '--batch', '2', '--repeats', '2'])
    found = json.loads((tmp_path / f'results/{NAME}.json').read_text())
    assert found['input'] == [196, 196] and found['batch'] == 2
    errors = {name: s['metrics']['EPE']
              for name, s in found['subjects'].items()}
    assert errors['openvino'] == pytest.approx(errors['torch'], abs=1e-2)
    assert 'openvino-bf16' in errors
