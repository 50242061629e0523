# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""``compile=True`` for whole models of the three frameworks."""
from typing import Any, Callable, Dict, List

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import nn

from ...registry import HOOKS

# Networks inside the models of MMPose, MMSegmentation and MMPretrain.
PARTS = ('backbone', 'neck', 'head', 'decode_head', 'auxiliary_head')


def networks(model: nn.Module) -> List[nn.Module]:
    """Return the networks of a model, from tensors to tensors."""
    inner: Any = model.module if is_model_wrapper(model) else model
    parts: List[nn.Module] = []
    for name in PARTS:
        part = getattr(inner, name, None)
        several = part if isinstance(part, nn.ModuleList) else [part]
        parts += [p for p in several if isinstance(p, nn.Module)]
    return parts


class CompiledForward:
    """Call a compiled forward pass in training and the plain one elsewhere.

    Evaluations have other shapes, for which compiling rarely pays.

    Args:
        module: Module whose forward pass is compiled.
        options: Arguments of ``torch.compile``.
    """

    def __init__(self, module: nn.Module, options: Dict[str, Any]):
        self.module = module
        self.plain: Callable = module.forward
        self.compiled = torch.compile(self.plain, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        forward = self.compiled if self.module.training else self.plain
        return forward(*args, **kwargs)


@HOOKS.register_module()
class CompileHook(Hook):
    """Compile the networks of a model where the config says ``compile``.

    mmengine compiles the whole training step with its optimizer, samples and
    logs, which fails for models of the three frameworks. Models without any
    of the parts in :data:`PARTS` are left to mmengine.
    """

    def __init__(self):
        self.asked: Any = None

    def before_run(self, runner):
        if runner.cfg.get('compile') and networks(runner.model):
            self.asked = runner.cfg.compile
            runner.cfg.compile = False  # for mmengine, which asks next

    def before_train(self, runner):
        if self.asked is None:
            return
        runner.cfg.compile, self.asked = self.asked, None
        options = runner.cfg.compile
        options = dict(options) if isinstance(options, dict) else {}
        for part in networks(runner.model):
            part.forward = CompiledForward(part, options)
        runner.logger.info('backbone, neck and heads are compiled: the first '
                           'iterations take longer')
