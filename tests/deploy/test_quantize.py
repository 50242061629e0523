# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Quantization to int8: calibration images, the metric and what it permits."""
import json
import re
import time

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from predicting import smooth
from tiny_tasks import task_config
from tool_runs import error_of, tool

from hrformer_mm.core.versions import can_export
from hrformer_mm.datasets.validation.common import spread_samples
from hrformer_mm.deploy import quantize as quantization
from hrformer_mm.deploy.quantize import (
    Validation,
    folder_images,
    quantize,
    quantizers,
    rounding_errors,
    speed_note,
    without,
)
from hrformer_mm.deploy.runtimes import Session

pytest.importorskip('mmpose.codecs')
TASKS = ('pose', 'seg', 'cls')
SHAPES = dict(pose=[], seg=['--shape', '112', '224'], cls=[])


@pytest.fixture
def openvino():
    pytest.importorskip('nncf')
    return pytest.importorskip('openvino')


def prepare(task, folder):
    """Write a config with data and random weights, and return their paths."""
    cfg = task_config(task, folder)
    cfg.dump(folder / 'config.py')
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict()), folder / 'weights.pth')
    return folder / 'config.py', folder / 'weights.pth'


def build(config):
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return cfg, MODELS.build(cfg.model).eval()


def network(openvino, count=6):
    """A chain of convolutions, the third of which has one huge channel."""
    from openvino import opset13 as ops
    rng = np.random.default_rng(0)
    image = ops.parameter([-1, 3, 16, 16], np.float32, 'image')
    x = image
    for i in range(count):
        kernel = rng.normal(size=(8, 3 if i == 0 else 8, 3, 3)) / 5
        if i == 2:
            kernel[0] *= 1000
        if i == 3:  # undone, so that the others are not rounded by it
            kernel[:, 0] /= 1000
        x = ops.relu(ops.convolution(
            x, ops.constant(kernel.astype('f4')), [1, 1], [1, 1], [1, 1],
            [1, 1]))  # yapf: disable
    model = openvino.Model([x], [image], 'network')
    model.set_rt_info(json.dumps(dict(task='pose', post=False, names=[])),
                      ['hrformer_mm'])
    return model, [rng.normal(size=(1, 3, 16, 16)).astype('f4')
                   for _ in range(4)]


# Images


def test_samples_are_spread_over_the_data():
    assert spread_samples(10, 4) == [0, 2, 5, 7]
    assert spread_samples(3, 300) == [0, 1, 2]


@pytest.mark.parametrize('task', [
    pytest.param('seg', marks=pytest.mark.slow), 'pose', 'cls'])
def test_images_of_folders_and_configs_take_the_test_pipeline(task, tmp_path):
    config, _ = prepare(task, tmp_path)
    cfg, model = build(config)
    height, width = dict(pose=(112, 84), seg=(112, 224), cls=(64, 64))[task]
    folder = tmp_path / 'images'
    folder.mkdir()
    for i in range(3):
        cv2.imwrite(str(folder / f'{i}.png'), smooth(i, height, width))
    images = folder_images(cfg, model, folder, 2)
    assert len(images) == 2 and images[0].dtype == np.float32
    if task != 'seg':  # whose images keep their aspect ratio
        assert images[0].shape == (1, 3, height, width)
    assert abs(images[0].mean()) < 2 and images[0].std() > .1
    found = Validation(cfg).images(4)
    assert len(found) == 4 and found[0].shape[:2] == (1, 3)


def test_a_folder_without_images_is_reported(tmp_path):
    with pytest.raises(ValueError, match='has no images'):
        folder_images(Config(), None, tmp_path, 4)


def test_a_config_without_validation_is_reported():
    with pytest.raises(ValueError, match='has no val_dataloader'):
        Validation(Config(dict(val_dataloader=None)))


# The metric


class Known:
    """A network whose heatmaps or logits are known."""
    label = 'known'

    def __init__(self, maps, count):
        self.maps = maps
        self.meta = dict(names=['x'] * count, post=False)

    def __call__(self, images):
        return [np.repeat(self.maps, len(images), 0)]


def test_the_metric_is_in_points_and_more_is_better(tmp_path):
    config, _ = prepare('cls', tmp_path)
    validation = Validation(Config.fromfile(config))
    labels = [validation.dataset.get_data_info(i)['gt_label']
              for i in range(len(validation.dataset))]
    logits = np.zeros((1, 10), 'f4')
    logits[0, labels[0]] = 9  # the network knows one class only
    share = 100 * np.mean(np.array(labels) == labels[0])
    assert validation.name == 'accuracy/top1'
    assert validation(Known(logits, 10)) == pytest.approx(share)
    validation.sign = -1  # rule='less'
    assert validation(Known(logits, 10)) == pytest.approx(-share)


@pytest.mark.parametrize('name, rule, scale', [
    ('coco/AP', 'greater', 100), ('EPE', 'less', -1), ('NME', 'less', -100)])
def test_metrics_of_pose_are_fractions_but_the_error_in_pixels(
        name, rule, scale, tmp_path):
    config, _ = prepare('pose', tmp_path)
    cfg = Config.fromfile(config)
    cfg.default_hooks.checkpoint.update(save_best=name, rule=rule)
    assert Validation(cfg).scale == scale


def test_without_a_named_metric_the_first_one_counts(tmp_path):
    config, _ = prepare('cls', tmp_path)
    cfg = Config.fromfile(config)
    cfg.default_hooks.checkpoint.save_best = None
    cfg.val_evaluator = dict(type='SingleLabelMetric', items=['recall'])
    validation = Validation(cfg)
    validation(Known(np.zeros((1, 10), 'f4'), 10))
    assert validation.name == 'single-label/recall'


def test_an_unknown_metric_is_reported(tmp_path):
    config, _ = prepare('cls', tmp_path)
    cfg = Config.fromfile(config)
    cfg.default_hooks.checkpoint.save_best = 'mIoU'
    with pytest.raises(ValueError, match=r"'mIoU' is not among .*top1"):
        Validation(cfg)(Known(np.zeros((1, 10), 'f4'), 10))


# Quantization


def test_no_more_than_necessary_is_kept_in_higher_precision(openvino):
    model, images = network(openvino)
    whole, notes = quantize(model, images, lambda session: 90.)
    total = len(quantizers(whole))
    assert total >= 6 and '90.00 in int8 with 0 of' in notes[0]
    seen = []

    def evaluate(session):
        """Lose a point for each rounding but the first four."""
        seen.append(len(quantizers(session.source)))
        return 90. - max(seen[-1] - (total - 1), 0)

    found, notes = quantize(model, images, evaluate, .5)
    assert seen == [0, total, total - 1]
    assert len(quantizers(found)) == total - 1
    assert notes[0] == (f'metric: 90.00 in float32, 90.00 in int8 with 1 of '
                        f'{total} activations in higher precision')


def test_the_largest_rounding_errors_are_found_and_removed(openvino):
    model, images = network(openvino)
    whole, _ = quantize(model, images)
    errors = rounding_errors(whole, images)
    assert len(errors) == len(quantizers(whole)) and max(errors) < 1
    plain = Session(model, 'openvino')(images[0])[0]

    def error(network):
        return np.abs(Session(network, 'openvino')(images[0])[0] -
                      plain).mean()

    order = np.argsort(errors)
    half = len(errors) // 2
    assert error(without(whole, order)) < error(whole) / 2
    assert error(without(whole, order[half:])) < error(
        without(whole, order[:half]))


def test_a_larger_loss_than_permitted_writes_nothing(openvino):
    model, images = network(openvino)
    with pytest.raises(ValueError, match='metric: 90.00 in float32, .* loss '
                       'is more than --max-drop 0.5, nothing was written'):
        quantize(model, images, lambda session: 90. - len(
            quantizers(session.source)))


def test_a_metric_that_is_no_number_counts_as_lost(openvino):
    model, images = network(openvino)
    values = iter([50., *[float('nan')] * 9])
    with pytest.raises(ValueError, match='nan in int8'):
        quantize(model, images, lambda session: next(values))


@pytest.mark.parametrize('fast, text', [
    ('int8', r'^int8 is \d+\.\d\d times as fast as bf16 on this CPU$'),
    ('bf16', 'so --precision bf16 is the better choice')])
def test_the_faster_precision_on_this_cpu_is_named(fast, text, monkeypatch):
    def session(network, backend, precision):
        return lambda batch: time.sleep(.001 if precision == fast else .01)

    monkeypatch.setattr(quantization, 'Session', session)
    monkeypatch.setattr(quantization, 'has_bf16', lambda: True)
    note = speed_note(None, None, np.zeros((1, 3, 4, 4), 'f4'))
    assert re.search(text, note)


@pytest.mark.slow
@pytest.mark.parametrize('task', TASKS)
def test_int8_files_are_calibrated_evaluated_and_used(openvino, tmp_path,
                                                      capsys, task):
    if not can_export():
        pytest.skip('this torch is too old to export')
    config, weights = prepare(task, tmp_path)
    out = tmp_path / 'a.xml'
    flags = [str(config), str(weights), '--format', 'openvino', *SHAPES[task],
             '--precision', 'int8', '--dynamic', '--out', str(out)]
    tool('export')([*flags, '--calibrate', str(config), '--samples', '4',
                    '--max-drop', '100'])
    text = capsys.readouterr().out
    assert 'in float32' in text and 'calibrated with 4 images' in text
    assert 'times as fast as' in text
    session = Session(out, 'openvino')
    assert session.meta['precision'] == 'int8'
    tool('test')([str(config), str(out), '--out', str(tmp_path / 'a.json')])
    assert json.loads((tmp_path / 'a.json').read_text())
    (tmp_path / 'images').mkdir()
    cv2.imwrite(str(tmp_path / 'images/a.png'), smooth(0, 112, 224))
    tool('export')([*flags, '--calibrate', str(tmp_path / 'images'),
                    '--force'])
    assert 'the accuracy was not measured' in capsys.readouterr().out
    if task == 'cls':  # nothing is written that loses more than permitted
        assert '--max-drop -101' in error_of(tool('export'), [
            *flags, '--calibrate', config, '--max-drop', '-101', '--out',
            tmp_path / 'b.xml'], capsys)
        assert not [*tmp_path.glob('*b.xml'), *tmp_path.glob('*b.bin')]
