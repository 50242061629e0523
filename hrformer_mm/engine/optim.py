# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Parameter groups of the optimizer, and mixed precision."""
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from mmengine.device import (
    is_cuda_available,
    is_mlu_available,
    is_musa_available,
    is_npu_available,
)
from mmengine.dist import is_main_process
from mmengine.logging import MMLogger, print_log
from mmengine.optim import AmpOptimWrapper as MMEngineAmpOptimWrapper
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import Tensor, nn

from ..registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS

Groups = list[dict[str, Any]]
# Prefix of mmengine's log line for each option of each parameter.
OPTION_OF_PARAMETER = 'paramwise_options -- '


def supports_amp() -> bool:
    """Return whether mmengine supports mixed precision on this machine."""
    return bool(is_cuda_available() or is_npu_available()
                or is_mlu_available() or is_musa_available())


def is_amp(kind: Any) -> bool:
    """Whether the ``type`` of an optim_wrapper means mixed precision."""
    return kind in ('AmpOptimWrapper', 'mmengine.AmpOptimWrapper',
                    'hrformer_mm.AmpOptimWrapper', AmpOptimWrapper,
                    MMEngineAmpOptimWrapper)


@OPTIM_WRAPPERS.register_module()
class AmpOptimWrapper(MMEngineAmpOptimWrapper):
    """mmengine's ``AmpOptimWrapper`` that also works without a GPU.

    mmengine's class raises an error without a GPU, so a config for GPUs could
    not be tried on a laptop. This class then trains in full precision, exactly
    like ``OptimWrapper``, and logs a notice.

    Args:
        loss_scale: ``'dynamic'``, a number, or a dict of arguments of
            ``torch.cuda.amp.GradScaler``.
        dtype: ``'float16'``, ``'bfloat16'``, ... (default: float16 on CUDA).
        use_fsdp: Whether the model is wrapped for fully sharded training.
        **kwargs: Arguments of ``OptimWrapper``.

    Attributes:
        is_mixed: Whether training uses mixed precision.
    """

    def __init__(self,
                 loss_scale: str | float | dict[str, Any] = 'dynamic',
                 dtype: str | torch.dtype | None = None,
                 use_fsdp: bool = False,
                 **kwargs: Any):
        check_amp_arguments(loss_scale, dtype)
        self.is_mixed = supports_amp()
        if self.is_mixed:
            super().__init__(loss_scale, dtype, use_fsdp, **kwargs)
            return
        OptimWrapper.__init__(self, **kwargs)
        if is_main_process():
            print_log('no GPU found: full instead of mixed precision',
                      'current')

    @property
    def behaviour(self) -> Any:
        """Return the methods of the class that applies on this machine."""
        skipped = AmpOptimWrapper if self.is_mixed else MMEngineAmpOptimWrapper
        return super(skipped, self)

    def backward(self, loss: Tensor, **kwargs: Any):
        self.behaviour.backward(loss, **kwargs)

    def step(self, **kwargs: Any):
        self.behaviour.step(**kwargs)

    def state_dict(self) -> dict:
        return self.behaviour.state_dict()

    def load_state_dict(self, state_dict: dict):
        """Load a state that was saved with or without a GPU."""
        if not self.is_mixed:
            state_dict.pop('loss_scaler', None)
        self.behaviour.load_state_dict(state_dict)

    def optim_context(self, model: nn.Module) -> AbstractContextManager[None]:
        return self.behaviour.optim_context(model)


def check_amp_arguments(loss_scale: Any, dtype: Any):
    """Check arguments, even if they are not used on this machine.

    Raises:
        ValueError: If one is invalid. Names the valid choices.
    """
    valid = MMEngineAmpOptimWrapper.valid_dtypes
    if not (dtype is None or isinstance(dtype, torch.dtype)
            or dtype in valid):
        raise ValueError(f'optim_wrapper.dtype must be one of {valid} or '
                         f'None, got {dtype!r}')
    if loss_scale != 'dynamic' and not isinstance(loss_scale, (float, dict)):
        raise ValueError("optim_wrapper.loss_scale must be 'dynamic', a float "
                         f'or a dict, got {loss_scale!r}')


def merge_groups(groups: Groups, defaults: dict[str, Any]) -> Groups:
    """Merge parameter groups with equal options, in order of appearance.

    Args:
        groups: Parameter groups.
        defaults: Default options of groups.
    """
    merged: dict[tuple, dict[str, Any]] = {}
    for group in groups:
        options = {k: v for k, v in {**defaults, **group}.items()
                   if k != 'params' and v is not None}
        key = tuple(sorted(options.items()))
        merged.setdefault(key, dict(options, params=[]))
        merged[key]['params'] += group['params']
    return list(merged.values())


class OptionCounter(logging.Filter):
    """Filter that drops and counts mmengine's lines for single parameters."""

    def __init__(self):
        super().__init__()
        self.counts: Counter = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if not text.startswith(OPTION_OF_PARAMETER):
            return True
        self.counts[text.rpartition(':')[2]] += 1  # as weight_decay=0.0
        return False


@contextmanager
def summarised_options() -> Iterator[None]:
    """Log one line per option instead of one per option and parameter."""
    logger, counter = MMLogger.get_current_instance(), OptionCounter()
    logger.addFilter(counter)
    try:
        yield
    finally:
        logger.removeFilter(counter)
    for option, count in counter.counts.items():
        print_log(f'paramwise_cfg: {option} for {count} parameters', 'current')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class QuietConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor with a short log.

    mmengine logs a line for each option of each parameter, hundreds of lines
    for HRFormer. The parameter groups are the same.
    """

    def add_params(self,
                   params: Groups,
                   module: nn.Module,
                   prefix: str = '',
                   is_dcn_module: int | float | None = None):
        if prefix:  # recursive call for a submodule
            super().add_params(params, module, prefix, is_dcn_module)
            return
        with summarised_options():
            super().add_params(params, module, prefix, is_dcn_module)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class FewGroupsConstructor(QuietConstructor):
    """Constructor that merges all parameters with equal options in a group.

    With ``paramwise_cfg``, mmengine makes a group for every parameter, over a
    thousand for HRFormer. Optimizers launch kernels per group, so each step
    launches many more kernels, and building the optimizer and saving
    checkpoints takes seconds longer. The updates are the same.
    """

    def add_params(self,
                   params: Groups,
                   module: nn.Module,
                   prefix: str = '',
                   is_dcn_module: int | float | None = None):
        super().add_params(params, module, prefix, is_dcn_module)
        if not prefix:  # the whole model, after all submodules
            defaults = dict(lr=self.base_lr, weight_decay=self.base_wd)
            params[:] = merge_groups(params, defaults)
