# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Functions of ``mmcv._ext`` that detectors need, without compiling them.

The arguments are those that ``mmcv.ops`` passes to its extension. ``nms``
returns its result, all others write it into one of the arguments.
"""
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

NO_VISION = ('mmcv.ops.{} without compiled ops needs torchvision: pip install '
             'torchvision')
NO_MAX = ("mmcv.ops.roi_align with pool_mode='max' needs mmcv with compiled "
          "ops; use pool_mode='avg', the default of MMDetection")


def torchvision_ops(name: str) -> Any:
    """Return torchvision's registered operators.

    Raises:
        ImportError: If torchvision is not installed, with the fix.
    """
    try:
        import torchvision  # noqa: F401, registers them
    except ImportError as error:
        raise ImportError(NO_VISION.format(name)) from error
    return torch.ops.torchvision


def full_precision(tensor: Tensor) -> Tensor:
    """Convert half precision, for which CPUs have no kernels, to float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float,
        offset: int) -> Tensor:
    """Return the indices of the boxes to keep, best first.

    Args:
        boxes: Boxes as x1, y1, x2, y2, N x 4.
        scores: Their scores.
        iou_threshold: Boxes that overlap a better one by more are dropped.
        offset: 1 if x2 and y2 are the last pixels of the box, else 0.
    """
    boxes = full_precision(boxes)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torchvision_ops('nms').nms(boxes, scores.to(boxes), iou_threshold)


def roi_align_forward(input: Tensor, rois: Tensor, output: Tensor,
                      argmax_y: Tensor, argmax_x: Tensor, aligned_height: int,
                      aligned_width: int, spatial_scale: float,
                      sampling_ratio: int, pool_mode: int, aligned: bool):
    """Write the mean features of regions into ``output``.

    Raises:
        NotImplementedError: For ``pool_mode='max'``.
    """
    if not pool_mode:
        raise NotImplementedError(NO_MAX)
    features = full_precision(input)
    output.copy_(
        torchvision_ops('roi_align').roi_align(
            features, rois.to(features), spatial_scale, aligned_height,
            aligned_width, sampling_ratio, aligned))


def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor,
                       argmax_x: Tensor, grad_input: Tensor,
                       aligned_height: int, aligned_width: int,
                       spatial_scale: float, sampling_ratio: int,
                       pool_mode: int, aligned: bool):
    """Write the gradient of the features into ``grad_input``."""
    grad = full_precision(grad_output)
    grad_input.copy_(
        torchvision_ops('roi_align')._roi_align_backward(
            grad, rois.to(grad), spatial_scale, aligned_height, aligned_width,
            *grad_input.shape, sampling_ratio, aligned))


def focal_loss(logits: Tensor, target: Tensor, weight: Tensor, gamma: float,
               alpha: float) -> Tensor:
    """Compute the sigmoid focal loss of each logit.

    Args:
        logits: Logits of C classes, N x C.
        target: Class of each sample; C is the background.
        weight: Weight of each class, empty for equal ones. The background
            has weight 1.
        gamma: Exponent of the probability of the wrong answer.
        alpha: Weight of a positive class; of a negative one, 1 - alpha.
    """
    classes = torch.arange(logits.shape[1], device=logits.device)
    positive = target[:, None] == classes
    wrong = torch.where(positive, -logits, logits)
    loss = -(gamma * logsigmoid(wrong)).exp() * logsigmoid(-wrong)
    loss = torch.where(positive, alpha * loss, (1 - alpha) * loss)
    if weight.numel():
        loss = loss * torch.cat((weight, weight.new_ones(1)))[target][:, None]
    return loss


def sigmoid_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor,
                               output: Tensor, gamma: float, alpha: float):
    """Write the loss of each logit into ``output``."""
    output.copy_(
        focal_loss(full_precision(input), target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor,
                                grad_input: Tensor, gamma: float,
                                alpha: float):
    """Write the gradient of the loss of each logit into ``grad_input``."""
    with torch.enable_grad():
        logits = full_precision(input.detach()).requires_grad_()
        loss = focal_loss(logits, target, weight, gamma, alpha).sum()
    grad_input.copy_(torch.autograd.grad(loss, logits)[0])
