# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Learning-rate schedules that mmengine's own cannot express.

Rates are fractions of a group's own, so they follow ``auto_scale_lr``, and
have a closed form in the step, so a resumed training needs nothing else.
"""
from math import cos, pi
from typing import List

from mmengine.optim import _ParamScheduler

from ..registry import PARAM_SCHEDULERS


class WarmupLR(_ParamScheduler):
    """A ramp, and then what a subclass says in ``decay``.

    Args:
        optimizer: Whose learning rates are set.
        warmup: Length of the ramp, in epochs if ``by_epoch``.
        start_ratio: Of the rate at step 0 to the full one.
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
        """Make one that steps every iteration, of lengths in epochs.

        Raises:
            ValueError: If an epoch has no iteration.
        """
        if epoch_length < 1:
            raise ValueError(
                'an epoch has no iteration: the training data are fewer than '
                'a batch and train_dataloader.drop_last drops it')
        kwargs.update(
            warmup=warmup * epoch_length,
            begin=begin * epoch_length,
            end=end * epoch_length,
            by_epoch=False)
        return cls(*args, **kwargs)

    def decay(self, step: int) -> float:
        """Of the rate at a step after the ramp to the full one."""
        raise NotImplementedError

    def ratio(self, step: int) -> float:
        """Of the rate at a step since ``begin`` to the full one."""
        if step >= self.warmup:
            return self.decay(step)
        return self.start_ratio + (1 - self.start_ratio) * step / self.warmup

    def _get_value(self) -> List[float]:
        return [base * self.ratio(self.last_step) for base in self.base_values]


@PARAM_SCHEDULERS.register_module()
class WarmupCosineLR(WarmupLR):
    """One cosine over the whole training, its beginning replaced by a ramp.

    This is timm's ``CosineLRScheduler`` as the official classification code
    calls it: the cosine counts from step 0, so the rate steps from the full
    one to slightly below it when the warm-up ends. mmengine's pair of
    ``LinearLR`` and ``CosineAnnealingLR`` starts a shorter cosine there.

    Args:
        optimizer: Whose learning rates are set.
        warmup: Length of the ramp, in epochs if ``by_epoch``.
        start_ratio: Of the rate at step 0 to the full one.
        end_ratio: Of the rate at ``end`` to the full one.
        **kwargs: See :class:`WarmupLR`.
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
    """A ramp, then polynomial decay to zero (the segmentation recipe).

    At step t of T the rate is r + (1 - r) t / warmup times the full one, with
    r = ``start_ratio``, and from the step ``warmup`` on
    ((T - t) / (T - warmup)) ** power times it. It follows ``max_iters``, where
    mmengine's pair of ``LinearLR`` and ``PolyLR`` has to be told.

    Args:
        optimizer: Whose learning rates are set.
        warmup: Length of the ramp in steps.
        start_ratio: Of the rate at step 0 to the full one.
        power: Of the decay.
        **kwargs: See :class:`WarmupLR`.
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
