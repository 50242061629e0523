# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Prevent predictions with randomly initialised parameters."""
import re
from typing import Any

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

from .convert import first_few
from .keymap import BACKBONE

# Parts of a model that only its training needs.
TRAINING_ONLY = re.compile(r'(^|\.)(auxiliary_head|loss\w*)\.')


def is_for_training(name: str) -> bool:
    """Whether only training uses a tensor, by its name."""
    return TRAINING_ONLY.search(name) is not None


def guard_predictions(model: Any, permit: bool = False, whole: bool = True):
    """Make predictions fail while parameters of a model are random.

    Args:
        model: Model of mmengine, which may be wrapped. Anything else, such as
            a model that a runner has not built yet, is ignored.
        permit: Allow predictions anyway.
        whole: Require each checkpoint to fill all parameters, as in a test.
            Otherwise a head alone completes what was loaded before.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    if not isinstance(model, nn.Module):
        return
    owners = [getattr(hook, '__self__', None)
              for hook in model._load_state_dict_post_hooks.values()]
    guards = [x for x in owners if isinstance(x, PredictionGuard)]
    if not guards:
        guards = [PredictionGuard()]
        model._register_load_state_dict_pre_hook(
            guards[0].start_loading, with_module=True)
        model.register_load_state_dict_post_hook(guards[0].end_loading)
    guards[0].permit |= permit
    guards[0].whole |= whole


class PredictionGuard:
    """Hooks of a model, see :func:`guard_predictions`.

    Loading succeeds, as transfer to another head is legitimate. Predictions
    fail until a training step, or until checkpoints have filled the rest. The
    version of a parameter shows whether it was filled, as layers may rename
    and resize tensors while loading.

    Attributes:
        missing: Parameters with initial values.
        permit: Whether predictions are allowed anyway.
        whole: Whether each checkpoint has to fill all parameters.
    """

    def __init__(self):
        self.missing: set[str] = set()
        self.before: dict[str, tuple[nn.Parameter, int]] = {}
        self.permit = self.whole = self.is_hooked = False

    def start_loading(self, model: nn.Module, *args: Any):
        self.before = {
            name: (p, p._version)
            for name, p in model.named_parameters()
            if not is_for_training(name) and not p.is_inference()
        }

    def end_loading(self, model: nn.Module, *args: Any):
        """Record which parameters the checkpoint did not fill."""
        now = dict(model.named_parameters())
        missing = {
            name for name, (p, version) in self.before.items()
            if now.get(name) is p and p._version == version
        }
        filled = self.before.keys() - missing
        self.before = {}
        if not self.whole and not any(
                name.startswith(BACKBONE) for name in filled):
            missing &= self.missing
        self.missing = missing
        if missing and not self.is_hooked:
            model.register_forward_pre_hook(self.check, with_kwargs=True)
            self.is_hooked = True

    def check(self, model: nn.Module, args: tuple, kwargs: dict):
        """Raise instead of predicting at random (forward pre-hook).

        Raises:
            RuntimeError: If the model predicts with unfilled parameters.
        """
        mode = kwargs.get('mode', args[2] if len(args) > 2 else 'tensor')
        if mode == 'loss':
            self.missing = set()  # it is being trained
        permit = getattr(model.backbone, 'allow_random_head', None) if hasattr(
            model, 'backbone') else None
        if mode != 'predict' or not self.missing or permit or self.permit:
            return
        names = [n for n, _ in model.named_parameters() if n in self.missing]
        owner = '' if permit is None else 'model.backbone.'
        raise RuntimeError(
            f'the checkpoint has no fitting tensors for {len(names)} '
            f'parameters of the model{first_few(names)}: predictions would be '
            'random; train the model first or load a checkpoint that has '
            f'them ({owner}allow_random_head=True permits it)')
