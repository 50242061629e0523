# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Training our HRFormer and MMPose's class from the same weights."""
import json

import pytest
from small_data import WRITERS

from benchmarks.real_data import mmpose_class

OPTIONS = ['train_dataloader.batch_size=2', 'default_hooks.logger.interval=1',
           *(f'{part}_dataloader.{key}' for part in ('train', 'val')
             for key in ('num_workers=0', 'persistent_workers=False'))]


def test_all_input_sizes_of_nested_values_change():
    value = dict(codec=dict(input_size=(112, 112), heatmap_size=(28, 28)),
                 pipeline=[dict(input_size=(112, 112), padding=1.)])
    assert mmpose_class.change(value, mmpose_class.resized) == dict(
        codec=dict(input_size=(96, 96), heatmap_size=(24, 24)),
        pipeline=[dict(input_size=(96, 96), padding=1.)])


def test_missing_data_are_an_error_before_anything_is_built(tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        mmpose_class.main(['--data-root', str(tmp_path), '--work-dir',
                           str(tmp_path / 'work')])
    assert error.value.code == 2
    assert 'lspet does not exist' in capsys.readouterr().err
    assert not (tmp_path / 'work').exists()


@pytest.mark.slow
def test_both_classes_have_the_same_curves(tmp_path):
    pytest.importorskip('mmpose')
    WRITERS['lspet'](tmp_path / 'lspet')
    out = tmp_path / 'out.json'
    mmpose_class.main([
        '--data-root', str(tmp_path), '--work-dir', str(tmp_path / 'work'),
        '--out', str(out), '--figure', str(tmp_path / 'figures/curves.png'),
        '--epochs', '1', '--cfg-options', *OPTIONS])
    found = json.loads(out.read_text())
    ours, theirs = found['curves'].values()
    assert len(ours['loss']) == len(theirs['loss']) == 2
    # Float32 rounding of two implementations, after one step of AdamW
    assert found['largest_relative_difference']['loss'] < 1e-3
    assert (tmp_path / 'figures/curves.png').stat().st_size > 1000
