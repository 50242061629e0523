# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Support ``compile=True`` for models of the three frameworks."""
from collections.abc import Callable
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import nn

from ...registry import HOOKS

# Networks inside the models of MMPose, MMSegmentation and MMPretrain.
PARTS = ('backbone', 'neck', 'head', 'decode_head', 'auxiliary_head')


def networks(model: nn.Module) -> list[nn.Module]:
    """Return the networks of a model that map tensors to tensors."""
    inner: Any = model.module if is_model_wrapper(model) else model
    parts: list[nn.Module] = []
    for name in PARTS:
        part = getattr(inner, name, None)
        several = part if isinstance(part, nn.ModuleList) else [part]
        parts += [p for p in several if isinstance(p, nn.Module)]
    return parts


class CompiledForward:
    """Forward pass that is compiled in training only.

    Evaluation uses other shapes, for which compilation rarely pays off.

    Args:
        module: Module whose forward pass is compiled.
        options: Arguments of ``torch.compile``.
    """

    def __init__(self, module: nn.Module, options: dict[str, Any]):
        self.module = module
        self.plain: Callable = module.forward
        self.compiled = torch.compile(self.plain, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        forward = self.compiled if self.module.training else self.plain
        return forward(*args, **kwargs)


@HOOKS.register_module()
class CompileHook(Hook):
    """Compile the networks of a model if the config has ``compile``.

    mmengine compiles the whole training step, including data samples and
    logging, which fails for models of the three frameworks. It still does so
    for models without any part in :data:`PARTS`.
    """

    def __init__(self):
        self.asked: Any = None

    def before_run(self, runner):
        if runner.cfg.get('compile') and networks(runner.model):
            self.asked = runner.cfg.compile
            runner.cfg.compile = False  # mmengine reads it next

    def before_train(self, runner):
        if self.asked is None:
            return
        runner.cfg.compile, self.asked = self.asked, None
        options = runner.cfg.compile
        options = dict(options) if isinstance(options, dict) else {}
        from torch._dynamo import config as dynamo
        # Its split of a graph with synchronised norms returns wrong tensors
        # (torch 2.14): a counter of batches in place of the feature map.
        dynamo.optimize_ddp = False
        for part in networks(runner.model):
            part.forward = CompiledForward(part, options)
        runner.logger.info('compiling backbone, neck and heads: the first '
                           'iterations take longer')
