# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Learning rate schedules that mmengine does not have.

Rates are factors of the base rate of a group, so they follow
``auto_scale_lr``. They have a closed form in the step, so resuming needs no
further state.
"""
from math import cos, pi

from mmengine.optim import _ParamScheduler

from ..registry import PARAM_SCHEDULERS


class WarmupLR(_ParamScheduler):
    """Base class of schedules with a linear warm-up before a decay.

    Subclasses implement ``decay``. All ratios are relative to the base rate.

    Args:
        optimizer: Optimizer or optimizer wrapper.
        warmup: Length of the warm-up, in epochs if ``by_epoch``.
        start_ratio: Ratio of the learning rate at step 0.
        **kwargs: ``begin``, ``end``, ``last_step``, ``by_epoch``, ``verbose``
            as in mmengine. The Runner sets ``end`` to the end of training.
    """

    def __init__(self, optimizer, warmup: int, start_ratio: float, **kwargs):
        self.warmup, self.start_ratio = warmup, start_ratio
        super().__init__(optimizer, 'lr', **kwargs)

    @classmethod
    def build_iter_from_epoch(cls,
                              *args,
                              warmup: int,
                              epoch_length: int,
                              end: int,
                              begin: int = 0,
                              by_epoch: bool = True,
                              **kwargs) -> 'WarmupLR':
        """Build a scheduler that steps every iteration from epoch lengths.

        Raises:
            ValueError: If an epoch has no iterations.
        """
        if epoch_length < 1:
            raise ValueError(
                'an epoch has no iterations: the training dataset is smaller '
                'than a batch and train_dataloader.drop_last=True drops it')
        kwargs.update(
            warmup=warmup * epoch_length,
            begin=begin * epoch_length,
            end=end * epoch_length,
            by_epoch=False)
        return cls(*args, **kwargs)

    def decay(self, step: int) -> float:
        """Return the ratio of the learning rate at a step after warm-up."""
        raise NotImplementedError

    def ratio(self, step: int) -> float:
        """Return the ratio of the learning rate at a step from ``begin``."""
        if step >= self.warmup:
            return self.decay(step)
        return self.start_ratio + (1 - self.start_ratio) * step / self.warmup

    def _get_value(self) -> list[float]:
        return [base * self.ratio(self.last_step) for base in self.base_values]


@PARAM_SCHEDULERS.register_module()
class WarmupCosineLR(WarmupLR):
    """Cosine over the whole training whose beginning is a linear warm-up.

    This is timm's ``CosineLRScheduler`` with the arguments of the official
    classification code. The cosine starts at step 0, so the rate drops
    slightly below the base rate when the warm-up ends. mmengine's pair of
    ``LinearLR`` and ``CosineAnnealingLR`` starts a shorter cosine there.

    Args:
        optimizer: Optimizer or optimizer wrapper.
        warmup: Length of the warm-up, in epochs if ``by_epoch``.
        start_ratio: Ratio of the learning rate at step 0.
        end_ratio: Ratio of the learning rate at ``end``.
        **kwargs: Arguments of :class:`WarmupLR`.
    """

    def __init__(self,
                 optimizer,
                 warmup: int,
                 start_ratio: float = 1e-3,
                 end_ratio: float = 1e-2,
                 **kwargs):
        self.end_ratio = end_ratio
        super().__init__(optimizer, warmup, start_ratio, **kwargs)

    def decay(self, step: int) -> float:
        phase = pi * step / (self.end - self.begin)
        return self.end_ratio + (1 - self.end_ratio) * (1 + cos(phase)) / 2


@PARAM_SCHEDULERS.register_module()
class WarmupPolyLR(WarmupLR):
    """Linear warm-up, then polynomial decay to 0 (the segmentation recipe).

    The ratio of the learning rate at step t of T is r + (1 - r) t / warmup
    during the warm-up, with r = ``start_ratio``, and then
    ((T - t) / (T - warmup)) ** power. The length follows ``max_iters``, while
    mmengine's pair of ``LinearLR`` and ``PolyLR`` needs explicit lengths.

    Args:
        optimizer: Optimizer or optimizer wrapper.
        warmup: Length of the warm-up in steps.
        start_ratio: Ratio of the learning rate at step 0.
        power: Exponent of the decay.
        **kwargs: Arguments of :class:`WarmupLR`.
    """

    def __init__(self,
                 optimizer,
                 warmup: int = 1500,
                 start_ratio: float = 1e-6,
                 power: float = 0.9,
                 **kwargs):
        self.power = power
        super().__init__(optimizer, warmup, start_ratio, **kwargs)

    def decay(self, step: int) -> float:
        total = self.end - self.begin
        return ((total - step) / (total - self.warmup))**self.power
