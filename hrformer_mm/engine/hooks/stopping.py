# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Stop training when the loss is not finite."""
import torch
from mmengine.hooks import Hook

from ...registry import HOOKS
from .saving import advice


@HOOKS.register_module()
class StopAtNonFiniteLossHook(Hook):
    """Stop training, before it is saved, when the loss is NaN or infinite.

    With a dynamic loss scale (fp16), such a step does not change the weights,
    so several consecutive ones are accepted.

    Args:
        patience: Number of consecutive steps to accept with a loss scale.
    """
    priority = 'HIGH'  # before anything is logged or saved

    def __init__(self, patience: int = 10):
        self.patience = patience
        self.in_a_row = 0

    def after_train_iter(self,
                         runner,
                         batch_idx: int,
                         data_batch=None,
                         outputs=None):
        """See mmengine's ``Hook``.

        Raises:
            ValueError: If the loss is not finite. Names the iteration and the
                checkpoint to resume from.
        """
        loss = (outputs or {}).get('loss')
        if loss is None or bool(torch.as_tensor(loss).isfinite().all()):
            self.in_a_row = 0
            return
        self.in_a_row += 1
        skips = hasattr(runner.optim_wrapper, 'loss_scaler')
        if self.in_a_row > (self.patience if skips else 0):
            raise ValueError(
                f'the loss of iteration {runner.iter + 1} is '
                f'{torch.as_tensor(loss).mean().item()}; {advice(runner)}. '
                'It will recur with the same seed: use a lower learning rate, '
                'clip gradients (optim_wrapper.clip_grad.max_norm=1.) or '
                'check the data')
