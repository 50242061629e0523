# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Detection configs: gradients, training, evaluation, the recipe."""
import pytest
import torch
from helpers import CONFIGS, last_scalars
from mmengine.config import Config
from mmengine.runner import Runner

pytest.importorskip('mmdet')
from det_data import SYNTHETIC, tiny_det, write_det  # noqa: E402

from hrformer_mm.engine.train import test as evaluate  # noqa: E402

METHODS = ('cascade-mask-rcnn', 'faster-rcnn', 'fcos', 'mask-rcnn',
           'retinanet')
SLOW = pytest.mark.slow
COCO = sorted(path.stem for path in CONFIGS.glob('det/*_coco_*.py'))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_det(tmp_path_factory.mktemp('det') / 'data')


def gradients(runner: Runner) -> dict:
    """Gradients of all parameters for one batch."""
    batch = next(iter(runner.train_dataloader))
    model = runner.model.train()
    model.zero_grad()
    torch.manual_seed(0)
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    model.parse_losses(losses)[0].backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize('config', [
    pytest.param(f'det/hrformer_s_coco_800x1333_{method}.py', marks=SLOW)
    for method in METHODS
] + [SYNTHETIC])
def test_a_detector_learns_in_all_parameters_and_is_evaluated(
        config, data, tmp_path):
    cfg = tiny_det(config, tmp_path / 'run', data)
    runner = Runner.from_cfg(cfg)
    runner.train()
    names = ['coco/bbox_mAP'] + ['coco/segm_mAP'] * ('mask' in config)
    assert runner.iter == 2
    for name in names:
        assert -1 <= last_scalars(runner)[f'val/{name}'] <= 1
    grads = gradients(runner)
    assert [n for n, g in grads.items() if g is None] == []
    assert [n for n, g in grads.items() if not g.isfinite().all()] == []
    assert [n for n, g in grads.items()
            if n.startswith('backbone') and not g.any()] == []
    cfg = tiny_det(config, tmp_path / 'test', data)
    found = evaluate(cfg, str(tmp_path / 'run/epoch_1.pth'))
    assert {n: found[n] for n in names} == {
        n: pytest.approx(last_scalars(runner)[f'val/{n}'], abs=1e-3)
        for n in names
    }


@pytest.mark.parametrize('name', COCO)
def test_coco_configs_have_the_recipe(name):
    cfg = Config.fromfile(CONFIGS / 'det' / f'{name}.py')
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert cfg.model.backbone.drop_path_rate == .2
    assert cfg.train_cfg.max_epochs == (20 if 'cascade' in name else 24)
    assert cfg.train_dataloader.batch_size * 8 == (
        cfg.auto_scale_lr.base_batch_size)
    reads_masks = any(
        step.get('with_mask')
        for step in cfg.train_dataloader.dataset.pipeline)
    assert reads_masks == ('mask' in name) == ('segm' in
                                               cfg.val_evaluator.metric)
