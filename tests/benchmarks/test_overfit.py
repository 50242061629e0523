# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Sanity check by overfitting: which metric it reads, and which target."""
import pytest
from helpers import CONFIGS
from mmengine.config import Config

from benchmarks import overfit
from hrformer_mm.tasks import best_metric


@pytest.fixture
def trained(monkeypatch):
    """Replace training by given metrics of its end."""
    def use(**metrics):
        monkeypatch.setattr(overfit, 'check_inputs', lambda *_: None)
        monkeypatch.setattr(overfit, 'read_history', lambda _: [{'loss': 1.}])
        monkeypatch.setattr(overfit, 'fit_and_evaluate', lambda *_: metrics)

    return use


@pytest.mark.parametrize('hook, expected', [
    ({}, (None, False)),
    (dict(save_best=None), (None, False)),
    (dict(save_best='auto', rule='less'), (None, True)),
    (dict(save_best='NME', rule='less'), ('NME', True)),
    (dict(save_best=['PCK', 'EPE'], rule=['greater', 'less']),
     ('PCK', False)),
])  # yapf: disable
def test_the_metric_of_a_config_is_that_of_its_best_checkpoint(hook, expected):
    cfg = Config(dict(default_hooks=dict(checkpoint=hook)))
    assert best_metric(cfg) == expected


@pytest.mark.parametrize('name, metric', [
    ('pose/hrformer_s_coco-wholebody_256x192', 'coco-wholebody/AP'),
    ('pose/hrformer_s_crowdpose_256x192', 'crowdpose/AP'),
    ('pose/hrformer_t_coco_256x192', 'coco/AP'),
    ('seg/hrformer_s_drive_64x64', 'mDice'),
])
def test_overfitting_reports_the_metric_of_the_dataset(
        tmp_path, trained, name, metric):
    trained(**{metric: 95.})
    report = overfit.overfit(str(CONFIGS / f'{name}.py'), str(tmp_path))
    assert report['metric'] == metric and report['passed']
    assert (tmp_path / 'overfit.json').exists()


def test_a_metric_that_should_be_small_needs_a_target(tmp_path, trained):
    trained(NME=0.04)
    config = str(CONFIGS / 'pose/hrformer_s_wflw_256x256.py')
    with pytest.raises(ValueError, match='smaller values of NME .* --target'):
        overfit.overfit(config, str(tmp_path))
    for target, passed in ((0.05, True), (0.03, False)):
        report = overfit.overfit(config, str(tmp_path), target=target)
        assert report['passed'] == passed and report['target'] == target


def test_a_metric_that_the_evaluation_lacks_names_those_it_has(
        tmp_path, trained):
    trained(PCK=0.9)
    with pytest.raises(ValueError, match="no 'coco/AP'.*PCK"):
        overfit.overfit(
            str(CONFIGS / 'pose/hrformer_t_coco_256x192.py'), str(tmp_path))
