# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Pixel-wise cross-entropy losses, in plain PyTorch.

Logits are [B, K, H, W], labels [B, H, W]. A single channel of logits stands
for two classes, the first of which has the logit zero. Class weights are [K].
Computation is in float32, without synchronisation with the accelerator.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def two_classes(logits: Tensor) -> Tensor:
    """Return logits of both classes if one channel stands for two."""
    if logits.shape[1] > 1:
        return logits
    return torch.cat([torch.zeros_like(logits), logits], dim=1)


def pixel_losses(logits: Tensor, labels: Tensor,
                 ignore_index: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Compute -log p, class and validity of each pixel; all [B, H, W].

    Pixels without a label count as class 0.
    """
    labelled = torch.ones_like(labels, dtype=torch.bool)
    if ignore_index is not None:
        labelled = labels != ignore_index
    classes = torch.where(labelled, labels, 0)
    losses = F.cross_entropy(
        two_classes(logits.float()), classes, reduction='none')
    return losses, classes, labelled


def pixel_weights(classes: Tensor, labelled: Tensor,
                  class_weight: Tensor | None) -> Tensor:
    """Return the class weight of each pixel [B, H, W]; 0 without label."""
    if class_weight is None:
        return labelled.float()
    return class_weight[classes] * labelled


def cross_entropy(logits: Tensor,
                  labels: Tensor,
                  class_weight: Tensor | None = None,
                  ignore_index: int | None = 255) -> Tensor:
    """Compute the weighted mean over all labelled pixels, as in PyTorch.

    It is zero, not NaN, if no pixel has a label.
    """
    losses, classes, labelled = pixel_losses(logits, labels, ignore_index)
    weights = pixel_weights(classes, labelled, class_weight)
    total = weights.sum()
    return (losses * weights).sum() / torch.where(total > 0, total, 1.)


def pixel_accuracy(logits: Tensor, labels: Tensor,
                   ignore_index: int | None) -> Tensor:
    """Compute the percentage of correctly classified labelled pixels.

    As in MMSegmentation, it has shape [1] and is 100 without labels; unlike
    there, it does not synchronise with the accelerator.
    """
    labelled = torch.ones_like(labels, dtype=torch.bool)
    if ignore_index is not None:
        labelled = labels != ignore_index
    right = (two_classes(logits).argmax(1) == labels) & labelled
    total = labelled.sum()
    share = right.sum() / total.clamp(min=1)
    return 100 * torch.where(total > 0, share, 1.)[None]


def ohem_cross_entropy(logits: Tensor,
                       labels: Tensor,
                       thresh: float = 0.9,
                       min_kept: int = 100000,
                       class_weight: Tensor | None = None,
                       ignore_index: int | None = 255) -> Tensor:
    """Compute the mean over hard pixels (online hard example mining).

    In hard pixels the probability of the true class is below a bound. It is
    ``thresh`` or, if that keeps fewer than ``min_kept`` pixels of the whole
    batch, the probability that keeps that many. As in the official code:

    - the bound is excluded, so pixels of equal probability are dropped
      together;
    - class weights scale the losses, and the mean divides by the number of
      pixels, not by their weights;
    - the very first pixel counts even without a label, with the probability
      of class 0 and the loss 0.

    Unlike there, the result is zero, not NaN, if no pixel is hard.
    """
    losses, classes, labelled = pixel_losses(logits, labels, ignore_index)
    probs = torch.exp(-losses.detach()).flatten()
    weights = pixel_weights(classes, labelled, class_weight)
    counts = labelled.flatten().clone()
    counts[0] = True
    ranked = torch.where(counts, probs, torch.inf).sort().values
    last = (counts.sum() - 1).clamp(max=min_kept)
    bound = ranked.gather(0, last[None]).clamp(min=thresh)
    hard = counts & (probs < bound)
    total = ((losses * weights).flatten() * hard).sum()
    return total / hard.sum().clamp(min=1)
