# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The two processes of test_long_runs.py, started by torchrun."""
import sys
from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from toy import toy_config

from hrformer_mm.core.hrformer import HRFormer
from hrformer_mm.engine import train as training

ARCH = dict(channels=(4, 8, 8, 8), heads=(1, 1, 1, 1), modules=(1, 1, 1),
            blocks=1)  # yapf: disable


@MODELS.register_module()
class TinyHRFormer(BaseModel):
    """A backbone of a few thousand parameters and the mean of its maps."""

    def __init__(self, with_cp=False):
        super().__init__()
        self.backbone = HRFormer(ARCH, with_cp=with_cp)

    def forward(self, inputs, mode: str = 'tensor'):
        x = torch.stack(list(inputs)).repeat(1, 3, 8, 8)
        maps = self.backbone(x.to(next(self.parameters())))
        if mode == 'predict':
            return [dict(value=v.mean().item()) for v in maps[0]]
        return dict(loss=sum(y.square().mean() for y in maps))


def run(folder: Path, **options):
    """Train a toy config on both processes."""
    cfg = toy_config(folder, launcher='pytorch', **options)
    training.fit_machine(cfg)
    runner = training.build_runner(cfg)
    runner.train()
    return runner


def checkpointing(folder: Path):
    """Each level of activation checkpointing with synchronised norms."""
    for level in (False, 'ffn', True):
        run(folder / f'with_cp_{level}', sync_bn='torch', **{
            'model.type': 'TinyHRFormer', 'model.with_cp': level,
            'train_cfg.max_epochs': 1})  # yapf: disable


def norms_of_their_own(folder: Path):
    """Norms that are not synchronised, with averaged weights or without."""
    for by_epoch in (True, False):
        for average in (False, True):
            runner = run(
                folder / f'own_{by_epoch}_{average}', sync_bn=None,
                by_epoch=by_epoch,
                custom_hooks=[dict(type='EMAHook')] * average)
            if get_rank() == 0:
                value = runner.message_hub.get_scalar('val/value').current()
                torch.save(value, folder / f'own_{by_epoch}_{average}/value')


if __name__ == '__main__':
    for name in sys.argv[2:]:
        globals()[name](Path(sys.argv[1]))
