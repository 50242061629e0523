# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The checkpoint that --resume starts from, or the weights without one."""
import os
import shutil

import pytest
import torch
from toy import QuietRunner, toy_config

from hrformer_mm.engine import train as training
from hrformer_mm.engine.hooks.starting import candidates, newest_checkpoint

slow = pytest.mark.slow


def start(folder, resume, with_hook=True, **options):
    """Build a runner as tools/train.py does, with a --resume flag."""
    cfg = toy_config(folder, **{'train_cfg.max_epochs': 1, **options})
    if not with_hook:
        del cfg.default_hooks['exact_resume']
    training.set_resume(cfg, resume)
    return QuietRunner.from_cfg(cfg)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A work dir after three epochs, with best_*.pth beside them."""
    folder = tmp_path_factory.mktemp('trained')
    QuietRunner.from_cfg(toy_config(folder)).train()
    torch.use_deterministic_algorithms(False)
    return folder


@pytest.fixture
def pretrained(tmp_path):
    """Weights that no training of the tests ends with."""
    weights = {'layers.0.weight': torch.full((3, 1, 3, 3), 7.)}
    torch.save(dict(state_dict=weights), tmp_path / 'pretrained.pth')
    return str(tmp_path / 'pretrained.pth')


def first_weight(runner):
    return runner.model.layers[0].weight.flatten()[0].item()


@pytest.mark.parametrize('with_hook', [
    True, pytest.param(False, marks=slow)])
def test_a_first_start_with_resume_uses_load_from(pretrained, tmp_path,
                                                  with_hook):
    options = {'optim_wrapper.optimizer.lr': 0., 'load_from': pretrained,
               'with_hook': with_hook}
    runner = start(tmp_path / 'run', 'auto', **options)
    runner.train()
    assert first_weight(runner) == 7
    # The second start resumes, and load_from does not come in again.
    options.update({'optim_wrapper.optimizer.lr': .1,
                    'train_cfg.max_epochs': 2})
    torch.save(dict(state_dict={}), pretrained)
    runner = start(tmp_path / 'run', 'auto', **options)
    runner.train()
    assert runner.iter == 12 and 6 < first_weight(runner) < 8


def test_without_load_from_a_first_start_begins_from_scratch(tmp_path):
    runner = start(tmp_path / 'run', 'auto')
    runner.train()
    assert runner.iter == 6


def strip(path, keep, to):
    checkpoint = torch.load(path, weights_only=True)
    torch.save({k: checkpoint[k] for k in keep}, to)
    return to


def bare(path, to):
    torch.save(torch.load(path, weights_only=True)['state_dict'], to)
    return to


def without_state(kind, trained, tmp_path):
    """Return the path of weights without the state of their training."""
    last, to = trained / 'epoch_3.pth', tmp_path / 'weights.pth'
    if kind == 'best':
        return next(trained.glob('best_*.pth'))
    if kind == 'bare':
        return bare(last, to)
    keep = ['meta'] * (kind == 'stripped') + ['state_dict']
    return strip(last, keep, to)


@pytest.mark.parametrize('kind, says', [
    ('best', 'no optimizer state'),
    ('stripped', 'no optimizer state, no message hub'),
    ('published', 'no optimizer state, no epoch and iteration'),
    ('bare', 'no weights, no optimizer state, no epoch and iteration'),
])  # yapf: disable
def test_files_without_training_state_are_rejected(kind, says, trained,
                                                   tmp_path):
    """By our launcher at once."""
    to = without_state(kind, trained, tmp_path)
    with pytest.raises(ValueError, match=f'cannot resume from .*{says}'):
        start(tmp_path / 'run', str(to))


def test_the_hook_rejects_them_with_other_launchers(trained, tmp_path):
    cfg = toy_config(tmp_path / 'run', resume=True,
                     load_from=str(without_state('best', trained, tmp_path)))
    with pytest.raises(ValueError, match='cannot resume .*no optimizer state'):
        QuietRunner.from_cfg(cfg).train()


def test_a_directory_is_rejected(trained, tmp_path):
    with pytest.raises(ValueError, match='is a directory; .* use --work-dir '
                       f'{trained} --resume'):
        start(tmp_path / 'run', str(trained))


def test_a_given_checkpoint_is_resumed(trained, tmp_path):
    path = str(trained / 'epoch_2.pth')
    runner = start(tmp_path / 'run', path, **{'train_cfg.max_epochs': 3})
    runner.train()
    assert runner.iter == 18 and (tmp_path / 'run/epoch_3.pth').is_file()


def test_a_checkpoint_beyond_the_end_is_rejected(trained):
    with pytest.raises(ValueError, match='at epoch 3, beyond train_cfg.'
                       'max_epochs=2'):
        start(trained, 'auto', **{'train_cfg.max_epochs': 2}).train()


def test_training_by_epochs_is_not_resumed_by_iterations(trained, tmp_path):
    cfg = toy_config(tmp_path, by_epoch=False, resume=True,
                     load_from=str(trained / 'epoch_2.pth'))
    with pytest.raises(ValueError, match='checkpoint counts epochs, but '
                       'train_cfg counts iterations'):
        QuietRunner.from_cfg(cfg).train()


def copied(trained, folder, *names):
    """Copy checkpoints in this order, so that the last one is the newest."""
    folder.mkdir()
    for age, name in enumerate(names):
        shutil.copy(trained / name, folder / name)
        os.utime(folder / name, (1e9 + age, 1e9 + age))
    return folder


def test_without_last_checkpoint_the_furthest_checkpoint_is_used(
        trained, tmp_path):
    folder = copied(trained, tmp_path / 'copy', 'epoch_3.pth', 'epoch_1.pth',
                    'epoch_2.pth')
    (folder / 'pretrained.pth').write_bytes(
        bare(folder / 'epoch_1.pth', tmp_path / 'w.pth').read_bytes())
    names = [p.name for p in candidates(str(folder))]
    assert names == ['epoch_3.pth', 'epoch_2.pth', 'epoch_1.pth',
                     'pretrained.pth']


def test_last_checkpoint_of_a_copied_work_dir_refers_to_the_copy(
        trained, tmp_path):
    folder = copied(trained, tmp_path / 'copy', 'epoch_3.pth', 'epoch_1.pth')
    (folder / 'last_checkpoint').write_text(str(trained / 'epoch_3.pth'))
    assert candidates(str(folder))[0] == folder / 'epoch_3.pth'


class Log(list):
    warning = list.append


def test_damaged_checkpoints_are_reported_without_last_checkpoint(
        trained, tmp_path):
    folder = copied(trained, tmp_path / 'copy', 'epoch_2.pth', 'epoch_3.pth')
    whole = (folder / 'epoch_3.pth').read_bytes()
    (folder / 'epoch_3.pth').write_bytes(whole[:len(whole) // 2])
    log = Log()
    assert newest_checkpoint(str(folder), log).endswith('epoch_2.pth')
    assert len(log) == 1 and 'epoch_3.pth is cut off' in log[0]
