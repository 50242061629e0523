# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""How parameters are handed to the optimiser."""
from typing import Any, Dict, List, Optional, Union

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from .registry import OPTIM_WRAPPER_CONSTRUCTORS

Groups = List[Dict[str, Any]]


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


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class FewGroupsConstructor(DefaultOptimWrapperConstructor):
    """mmengine's own, with one group for all parameters of equal options.

    With ``paramwise_cfg`` mmengine makes a group of every parameter, over a
    thousand for HRFormer. Optimisers update a group at once, so each step
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
