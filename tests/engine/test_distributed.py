# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Two processes take the same steps as one with the whole batch."""
import os
import subprocess
import sys
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from dist_toy import SAME
from helpers import CONFIGS, ROOT
from mmengine.dist import init_dist
from mmengine.model import MMDistributedDataParallel, convert_sync_batchnorm
from processes import assert_same_steps
from torch import nn
from toy import ENV, QuietRunner, toy_config

from hrformer_mm.engine import distributed
from hrformer_mm.engine import train as training


@pytest.fixture(scope='module')
def several(tmp_path_factory):
    """Folder of what two processes wrote."""
    return launch(tmp_path_factory.mktemp('several'), 'plain')


@pytest.fixture(scope='module')
def switched(tmp_path_factory):
    """Folder of what two processes wrote with switches of training."""
    return launch(tmp_path_factory.mktemp('switched'), 'switches')


def launch(folder, part):
    """Run a part of tests/engine/dist_toy.py on two processes."""
    done = subprocess.run([
        sys.executable, '-m', 'torch.distributed.run', '--standalone',
        '--nproc_per_node=2', ROOT / 'tests/engine/dist_toy.py', folder, part
    ], env=ENV, timeout=1200, text=True, capture_output=True)
    (folder / 'out.txt').write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope='module')
def one(tmp_path_factory):
    """Steps and final weights of one process with twice the batch."""
    folder = tmp_path_factory.mktemp('one')
    cfg = toy_config(
        folder, custom_hooks=[
            dict(type='RecordSteps', path=str(folder / 'steps.pth'))],
        **{**SAME, 'train_dataloader.batch_size': 4})
    QuietRunner.from_cfg(cfg).train()
    torch.use_deterministic_algorithms(False)
    return folder


def weights(folder, epoch=3):
    return torch.load(folder / f'epoch_{epoch}.pth')['state_dict']


def assert_same_weights(a, b, tolerance=1e-4):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=tolerance)


def test_two_processes_take_the_same_steps_as_one(several, one):
    assert_same_steps(several / 'ddp', one)
    assert_same_weights(weights(several / 'ddp'), weights(one))


def test_unsynchronised_norms_change_the_steps(one, tmp_path):
    cfg = toy_config(tmp_path, custom_hooks=[
        dict(type='RecordSteps', path=str(tmp_path / 'steps.pth'))],
        **{**SAME, 'train_cfg.max_epochs': 1})
    QuietRunner.from_cfg(cfg).train()  # sees batches of 2
    with pytest.raises(AssertionError):
        assert_same_weights(weights(tmp_path, 1), weights(one, 1))


@pytest.mark.slow
def test_compiling_does_not_change_the_results(switched):
    assert_same_weights(weights(switched / 'compile'),
                        weights(switched / 'longer'))


def test_sigterm_for_one_stops_all_and_resumes_exactly(several):
    assert [(several / f'stopped/code_{i}').read_text()
            for i in range(2)] == ['143', '143']
    assert (several / 'stopped/interrupted.pth').is_file()
    a, b = weights(several / 'stopped'), weights(several / 'ddp')
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_sigterm_in_an_evaluation_stops_all_with_the_weights_of_training(
        several):
    folder = several / 'stopped_val'
    assert [(folder / f'code_{i}').read_text()
            for i in range(2)] == ['143', '143']
    saved = torch.load(folder / 'interrupted.pth')
    assert saved['meta']['iter'] == 3
    a, b = (torch.load(f / 'epoch_3.pth')
            for f in (folder, several / 'not_stopped_val'))
    for key in ('state_dict', 'ema_state_dict'):
        assert all(torch.equal(a[key][n], b[key][n]) for n in b[key])


@pytest.mark.slow
@pytest.mark.parametrize('round_up', [True, False])
def test_each_image_is_evaluated_once(switched, round_up):
    metrics = torch.load(switched / f'odd_{round_up}/metrics.pth')
    assert metrics['count'] == 5


def test_unused_parameters_are_not_searched():
    for path in CONFIGS.glob('**/*.py'):
        assert 'find_unused_parameters' not in path.read_text(), path


# In this process alone


def test_the_norm_equals_pytorchs_with_one_process(monkeypatch):
    monkeypatch.setattr(distributed, 'all_reduce', lambda x: x)
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).double()
    synced = distributed.synchronise_norms(
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).double())
    synced.load_state_dict(plain.state_dict())
    assert isinstance(synced[1], distributed.AllReduceBatchNorm)
    for _ in range(3):
        x = torch.randn(4, 2, 5, 6, dtype=torch.double)
        grads = []
        for net in (plain, synced):
            net.zero_grad()
            (net(x)**3).sum().backward()
            grads.append([p.grad for p in net.parameters()])
        torch.testing.assert_close(*grads)
    torch.testing.assert_close(plain.state_dict(), synced.state_dict())
    torch.testing.assert_close(plain.eval()(x), synced.eval()(x))


@pytest.fixture
def one_process(tmp_path):
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/store',
                            rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_mmengine_wraps_a_model_on_cpu_with_synchronised_norms(one_process):
    net = convert_sync_batchnorm(
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)), 'torch')
    names = list(net.state_dict())
    wrapped = MMDistributedDataParallel(module=net, device_ids=[0],
                                        broadcast_buffers=False)
    assert wrapped.device_ids is None
    assert isinstance(wrapped.module[1], distributed.AllReduceBatchNorm)
    assert list(wrapped.module.state_dict()) == names
    wrapped(torch.randn(2, 2, 5, 5)).sum().backward()
    assert all(p.grad is not None for p in wrapped.parameters())


def test_unsynchronised_norms_stay_unsynchronised(one_process):
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    wrapped = MMDistributedDataParallel(module=net, device_ids=[0])
    assert type(wrapped.module[1]) is nn.BatchNorm2d


@pytest.mark.parametrize('launcher, variables', [
    ('pytorch', dict(RANK='1', WORLD_SIZE='2', LOCAL_RANK='1')),
    ('slurm', dict(SLURM_PROCID='1', SLURM_NTASKS='2', SLURM_LOCALID='1')),
    ('mpi', dict(OMPI_COMM_WORLD_RANK='1', OMPI_COMM_WORLD_SIZE='2',
                 OMPI_COMM_WORLD_LOCAL_RANK='1',
                 OMPI_COMM_WORLD_LOCAL_SIZE='2'))])
def test_mmengine_uses_gloo_without_gpu(launcher, variables, no_launcher):
    joined = []
    no_launcher.setattr(dist, 'init_process_group',
                        lambda *args, **kwargs: joined.append((args, kwargs)))
    no_launcher.setattr(distributed, 'get_device', lambda: 'cpu')
    no_launcher.setattr(distributed, 'meet', lambda: joined.append('met'))
    for name, value in variables.items():
        no_launcher.setenv(name, value)
    no_launcher.setattr(mp, 'get_start_method', lambda **_: 'fork')
    init_dist(launcher, backend='nccl', timeout=7)
    assert joined == [
        'met', (('gloo', ), dict(timeout=timedelta(seconds=7)))]
    assert os.environ['RANK'] == os.environ['LOCAL_RANK'] == '1'


def test_mmengine_uses_nccl_with_a_gpu(no_launcher):
    joined, chosen = [], []
    no_launcher.setattr(dist, 'init_process_group',
                        lambda *args, **kwargs: joined.append((args, kwargs)))
    no_launcher.setattr(distributed, 'get_device', lambda: 'cuda')
    no_launcher.setattr(torch.cuda, 'set_device', chosen.append)
    no_launcher.setattr(mp, 'get_start_method', lambda **_: 'fork')
    for name in ('RANK', 'LOCAL_RANK'):
        no_launcher.setenv(name, '1')
    init_dist('pytorch', backend='nccl')
    assert joined == [((), dict(backend='nccl'))] and chosen == [1]


@pytest.fixture
def no_launcher(monkeypatch):
    """Without the variables of any; what a test sets is put back."""
    names = {n for v in distributed.VARIABLES.values() for p in v.items()
             for n in p}
    for name in (*names, 'MASTER_ADDR', 'MASTER_PORT', 'SLURM_NNODES',
                 'SLURM_JOB_ID', 'OMPI_COMM_WORLD_LOCAL_SIZE'):
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize('launcher, variable', [
    ('pytorch', 'RANK'), ('slurm', 'SLURM_PROCID'),
    ('mpi', 'OMPI_COMM_WORLD_RANK')])
def test_a_launcher_without_processes_is_rejected(launcher, variable,
                                                  no_launcher):
    with pytest.raises(ValueError, match=f'{variable} is not set'):
        distributed.adopt_launcher(launcher)


def test_a_process_of_mpirun_finds_the_others(no_launcher):
    for name, value in dict(RANK=3, SIZE=4, LOCAL_RANK=3,
                            LOCAL_SIZE=4).items():
        no_launcher.setenv(f'OMPI_COMM_WORLD_{name}', str(value))
    distributed.adopt_launcher('mpi')
    assert [os.environ[n] for n in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK',
                                    'MASTER_ADDR')] == ['3', '4', '3',
                                                        '127.0.0.1']
    no_launcher.delenv('MASTER_ADDR')
    no_launcher.setenv('OMPI_COMM_WORLD_LOCAL_SIZE', '2')
    with pytest.raises(ValueError, match='set MASTER_ADDR'):
        distributed.adopt_launcher('mpi')


def test_slurm_names_the_first_machine(no_launcher, tmp_path):
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text('#!/bin/sh\necho a1\necho a2\n')
    scontrol.chmod(0o755)
    for name, value in dict(PATH=f"{tmp_path}:{os.environ['PATH']}",
                            SLURM_NNODES='2', SLURM_JOB_NODELIST='a[1-2]'
                            ).items():  # yapf: disable
        no_launcher.setenv(name, value)
    assert distributed.first_machine('slurm') == 'a1'


@pytest.mark.parametrize('kind', ['zero', 'fsdp'])
def test_sharding_of_version_0_1_is_rejected_with_mmengines_way(
        kind, tmp_path):
    with pytest.raises(ValueError, match='strategy of MMEngine'):
        training.fit_machine(toy_config(tmp_path, parallel=kind))
