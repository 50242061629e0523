# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""How parameters are handed to the optimizer, and in which precision."""
import logging
from collections import Counter
from contextlib import contextmanager
from typing import Any, ContextManager, Dict, Iterator, List, Optional, Union

import torch
from mmengine.device import (is_cuda_available, is_mlu_available,
                             is_musa_available, is_npu_available)
from mmengine.dist import is_main_process
from mmengine.logging import MMLogger, print_log
from mmengine.optim import AmpOptimWrapper as MMEngineAmpOptimWrapper
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import Tensor, nn

from ..registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS

Groups = List[Dict[str, Any]]
# Arguments of AmpOptimWrapper that OptimWrapper does not have.
AMP_ARGUMENTS = ('loss_scale', 'dtype', 'use_fsdp')
# What mmengine logs for each option of each parameter.
OPTION_OF_PARAMETER = 'paramwise_options -- '


def supports_amp() -> bool:
    """Whether mmengine can train in mixed precision on this machine."""
    return bool(is_cuda_available() or is_npu_available()
                or is_mlu_available() or is_musa_available())


def is_amp(kind: Any) -> bool:
    """Whether the ``type`` of an optim_wrapper means mixed precision."""
    return kind in ('AmpOptimWrapper', 'mmengine.AmpOptimWrapper',
                    'hrformer_mm.AmpOptimWrapper', AmpOptimWrapper,
                    MMEngineAmpOptimWrapper)


@OPTIM_WRAPPERS.register_module()
class AmpOptimWrapper(MMEngineAmpOptimWrapper):
    """mmengine's ``AmpOptimWrapper``, which also runs without a GPU.

    mmengine's own refuses to be built where there is no GPU, so that a config
    for GPUs could not be tried on a laptop. Here it then trains in full
    precision, exactly as ``OptimWrapper`` does, and prints one notice.

    Args:
        loss_scale: ``'dynamic'``, a number, or a dict of arguments of
            ``torch.cuda.amp.GradScaler``.
        dtype: ``'float16'``, ``'bfloat16'``, ...; default: float16 on CUDA.
        use_fsdp: Whether the model is wrapped for fully sharded training.
        **kwargs: Arguments of ``OptimWrapper``.

    Attributes:
        is_mixed: Whether training is in mixed precision.
    """

    def __init__(self,
                 loss_scale: Union[str, float, Dict[str, Any]] = 'dynamic',
                 dtype: Union[str, torch.dtype, None] = None,
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
        """The methods of the class that applies on this machine."""
        skipped = AmpOptimWrapper if self.is_mixed else MMEngineAmpOptimWrapper
        return super(skipped, self)

    def backward(self, loss: Tensor, **kwargs: Any):
        self.behaviour.backward(loss, **kwargs)

    def step(self, **kwargs: Any):
        self.behaviour.step(**kwargs)

    def state_dict(self) -> dict:
        return self.behaviour.state_dict()

    def load_state_dict(self, state_dict: dict):
        """Load a state saved with or without a GPU."""
        if not self.is_mixed:
            state_dict.pop('loss_scaler', None)
        self.behaviour.load_state_dict(state_dict)

    def optim_context(self, model: nn.Module) -> ContextManager[None]:
        return self.behaviour.optim_context(model)


def check_amp_arguments(loss_scale: Any, dtype: Any):
    """Refuse wrong arguments also where they are not used.

    Raises:
        ValueError: Names the valid choices.
    """
    valid = MMEngineAmpOptimWrapper.valid_dtypes
    if not (dtype is None or isinstance(dtype, torch.dtype)
            or dtype in valid):
        raise ValueError(f'optim_wrapper.dtype must be one of {valid} or '
                         f'None, got {dtype!r}')
    if loss_scale != 'dynamic' and not isinstance(loss_scale, (float, dict)):
        raise ValueError("optim_wrapper.loss_scale must be 'dynamic', a float "
                         f'or a dict, got {loss_scale!r}')


def merge_groups(groups: Groups, defaults: Dict[str, Any]) -> Groups:
    """Join parameter groups of equal options, in order of their first.

    Args:
        defaults: Options of a group that does not have its own.
    """
    merged: Dict[tuple, Dict[str, Any]] = {}
    for group in groups:
        options = {k: v for k, v in {**defaults, **group}.items()
                   if k != 'params' and v is not None}
        key = tuple(sorted(options.items()))
        merged.setdefault(key, dict(options, params=[]))
        merged[key]['params'] += group['params']
    return list(merged.values())


class OptionCounter(logging.Filter):
    """Drop the lines that mmengine logs for single parameters; count them."""

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
    """Log one line for each option of parameters instead of hundreds."""
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
    """mmengine's default constructor, which logs a summary.

    mmengine logs a line for each option of each parameter, which is hundreds
    of lines for HRFormer. The parameter groups are the same.
    """

    def add_params(self,
                   params: Groups,
                   module: nn.Module,
                   prefix: str = '',
                   is_dcn_module: Optional[Union[int, float]] = None):
        if prefix:  # a submodule; it is called for the whole model first
            super().add_params(params, module, prefix, is_dcn_module)
            return
        with summarised_options():
            super().add_params(params, module, prefix, is_dcn_module)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class FewGroupsConstructor(QuietConstructor):
    """Make one group for all parameters of equal options.

    With ``paramwise_cfg`` mmengine makes a group of every parameter, over a
    thousand for HRFormer. Optimizers update a group at once, so each step
    then launches as many times more kernels, and building them and writing
    checkpoints takes seconds longer. Updates are the same.
    """

    def add_params(self,
                   params: Groups,
                   module: nn.Module,
                   prefix: str = '',
                   is_dcn_module: Optional[Union[int, float]] = None):
        super().add_params(params, module, prefix, is_dcn_module)
        if not prefix:  # the whole model, after all that is in it
            defaults = dict(lr=self.base_lr, weight_decay=self.base_wd)
            params[:] = merge_groups(params, defaults)
