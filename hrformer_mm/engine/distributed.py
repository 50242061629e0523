# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Join several processes, and synchronise batch norms on CPU.

Everything that mmengine has for GPUs is used as it is. The code here lets the
same configs run on CPU, where the tests of distributed training run.
"""
import os
import subprocess
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .launch import Meeting, node_timeout

# Environment variables in which launchers pass the rank of a process.
VARIABLES = dict(
    pytorch=dict(RANK='RANK', WORLD_SIZE='WORLD_SIZE'),
    slurm=dict(
        RANK='SLURM_PROCID',
        WORLD_SIZE='SLURM_NTASKS',
        LOCAL_RANK='SLURM_LOCALID'),
    mpi=dict(
        RANK='OMPI_COMM_WORLD_RANK',
        WORLD_SIZE='OMPI_COMM_WORLD_SIZE',
        LOCAL_RANK='OMPI_COMM_WORLD_LOCAL_RANK'))
STARTED_BY = dict(
    pytorch='bash tools/dist_train.sh or torchrun',
    slurm='bash tools/slurm_train.sh or srun',
    mpi='mpirun of Open MPI')

# Completed meetings, kept because PyTorch uses their store, too.
meetings: list[Meeting] = []


class Sum(torch.autograd.Function):
    """Differentiable sum of a tensor over all processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return Sum.apply(grad)  # each result depends on all inputs


def all_reduce(x: Tensor) -> Tensor:
    return Sum.apply(x)


class AllReduceBatchNorm(_BatchNorm):
    """Batch norm over the batches of all processes, on any device.

    PyTorch's ``SyncBatchNorm`` runs on GPUs only. This class supports CPUs and
    gloo. Training on several processes then equals training on one process
    with the whole batch. Mean and variance are reduced one after the other,
    because the difference of two sums of squares would lose precision.
    """

    def _check_input_dim(self, x: Tensor):
        """Accept any [N, C, ...]."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.track_running_stats:
            return super().forward(x)
        dims = [d for d in range(x.dim()) if d != 1]
        shape = [-1 if d == 1 else 1 for d in range(x.dim())]
        count = all_reduce(x.new_tensor(float(x.numel() // x.shape[1])))
        mean = all_reduce(x.sum(dims)) / count
        centred = x - mean.view(shape)
        var = all_reduce(centred.square().sum(dims)) / count
        self.update(mean.detach(), var.detach() * count / (count - 1))
        x = centred * (var + self.eps).rsqrt().view(shape)
        if self.affine:
            x = x * self.weight.view(shape) + self.bias.view(shape)
        return x

    @torch.no_grad()
    def update(self, mean: Tensor, var: Tensor):
        """Update the running statistics by those of a batch, each [C]."""
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked += 1
        step = self.momentum
        if step is None:  # the mean of all batches
            step = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean), step)
        self.running_var.lerp_(var.to(self.running_var), step)


def synchronise_norms(module: nn.Module,
                      kind: type = _BatchNorm) -> nn.Module:
    """Replace the batch norms of a model by :class:`AllReduceBatchNorm`.

    Parameters, buffers and their names are kept.

    Args:
        module: Model, or a batch norm.
        kind: Class of the norms to replace, such as ``nn.SyncBatchNorm``.

    Returns:
        The model, or the replacement of a batch norm.
    """
    if isinstance(module, kind):
        assert isinstance(module, _BatchNorm)
        synced = AllReduceBatchNorm(module.num_features, module.eps,
                                    module.momentum, module.affine,
                                    module.track_running_stats)
        synced._parameters, synced._buffers = (module._parameters,
                                               module._buffers)
        return synced.train(module.training)
    for name, child in module.named_children():
        module.add_module(name, synchronise_norms(child, kind))
    return module


def adopt_launcher(launcher: str):
    """Set the variables of torchrun from those of another launcher.

    Raises:
        ValueError: If a variable is missing, as in processes that were not
            started by the launcher.
    """
    missing = [v for v in VARIABLES[launcher].values() if v not in os.environ]
    if missing:
        raise ValueError(f'--launcher {launcher}: {missing[0]} is not set, so '
                         'this was not started by '
                         f'{STARTED_BY[launcher]}')
    for name, source in VARIABLES[launcher].items():
        os.environ[name] = os.environ[source]
    if 'MASTER_ADDR' not in os.environ:
        os.environ['MASTER_ADDR'] = first_machine(launcher)
    # Jobs that share a machine must not share a port.
    job = int(os.environ.get('SLURM_JOB_ID', 0)) % 20000
    os.environ.setdefault('MASTER_PORT', str(29500 + job))


def machines_of_slurm() -> list[str]:
    """Return the host names of a Slurm job, or [] if they are unknown."""
    nodes = os.environ.get('SLURM_JOB_NODELIST')
    if not nodes:
        return []
    try:
        return subprocess.run(['scontrol', 'show', 'hostnames', nodes],
                              text=True, capture_output=True,
                              check=True).stdout.split()  # yapf: disable
    except (OSError, subprocess.CalledProcessError):
        return []


def first_machine(launcher: str) -> str:
    """Return the address of the machine of the first process.

    Raises:
        ValueError: If there are several machines and the first is unknown.
    """
    several = os.environ.get('SLURM_NNODES', '1') != '1' or os.environ.get(
        'OMPI_COMM_WORLD_LOCAL_SIZE') != os.environ.get(
            'OMPI_COMM_WORLD_SIZE')
    if not several:
        return '127.0.0.1'
    names = machines_of_slurm()
    if names:
        return names[0]
    raise ValueError(f'--launcher {launcher} on several machines: set '
                     'MASTER_ADDR to the address of the first one')


def meet() -> None:
    """Wait for the other processes, unless torchrun has done so.

    Raises:
        TimeoutError: After ``NODE_TIMEOUT`` seconds. Names the missing ones.
    """
    world = int(os.environ['WORLD_SIZE'])
    if world == 1 or meetings or dist.is_initialized() or (
            'TORCHELASTIC_RUN_ID' in os.environ):
        return
    meeting = Meeting(
        int(os.environ['RANK']), world, os.environ['MASTER_ADDR'],
        int(os.environ['MASTER_PORT']),
        os.environ.get('LOCAL_RANK', '0') == '0', machines_of_slurm)
    meeting.wait(node_timeout())
    meetings.append(meeting)


def has_no_gpu() -> bool:
    """Whether this machine has no GPU, so that processes use gloo."""
    return get_device() in ('cpu', 'mps')


def join_by_gloo(launcher: str, timeout: timedelta | None = None,
                 port: int | None = None, **kwargs: Any):
    """Initialize the process group without selecting a GPU.

    Args:
        launcher: ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        timeout: Timeout of operations (default: 30 minutes).
        port: Port of the first machine (default: ``MASTER_PORT``).
        **kwargs: Arguments of ``init_process_group``.

    Raises:
        ValueError: If this process was not started by the launcher.
        TimeoutError: If other processes are missing.
    """
    if port is not None:
        os.environ['MASTER_PORT'] = str(port)
    adopt_launcher(launcher)
    meet()
    if os.environ.get('RANK', '0') == '0':
        print_log('no GPU found: gloo instead of nccl', 'current')
    dist.init_process_group(
        'gloo', timeout=timeout or timedelta(minutes=30), **kwargs)


def join(cfg: Config):
    """Join the processes before the Runner does; on CPU with gloo.

    Raises:
        ValueError: If this process was not started by the launcher.
        TimeoutError: If other processes are missing.
    """
    launcher = cfg.get('launcher', 'none')
    if launcher == 'none':
        return
    cfg.launcher = 'pytorch'
    if not has_no_gpu():
        adopt_launcher(launcher)
        meet()
        return
    cfg.env_cfg.dist_cfg.backend = 'gloo'
    if cfg.get('sync_bn'):
        cfg.sync_bn = 'torch'  # mmcv's needs compiled ops
    if not dist.is_initialized():
        seconds = cfg.env_cfg.dist_cfg.get('timeout', 1800)
        join_by_gloo(launcher, timedelta(seconds=seconds))
