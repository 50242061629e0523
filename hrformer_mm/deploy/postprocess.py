# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Postprocessing in the graph: keypoints, labels, boxes and scores from maps.

The modules compute with tensors what the frameworks compute in NumPy after the
network. Letters: K keypoints or classes, H x W a heatmap, h x w an image.
"""
from collections.abc import Sequence
from itertools import chain
from typing import Any

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Names of the outputs without postprocessing; detectors have one of each in
# every level, the last one if their head has a centerness or similar.
MAPS = dict(pose='heatmaps', seg='logits', cls='logits')
LEVEL_MAPS = ('cls_score', 'bbox_pred', 'score_factor')


def peaks(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return positions and values of the maxima of [B, K, H, W], each [B, K].

    A position is the index of the pixel in the flattened map.
    """
    value, place = maps.flatten(2).max(dim=2)
    return place, value


def look_up(maps: Tensor, place: Tensor) -> Tensor:
    """Return the values of maps [B, K, H, W] at one position each, [B, K]."""
    flat = maps.flatten(2)
    place = place.clamp(0, flat.shape[2] - 1)
    return flat.gather(2, place[..., None])[..., 0]


def newton_step(dx: Tensor, dy: Tensor, dxx: Tensor, dxy: Tensor,
                dyy: Tensor) -> Tensor:
    """Return the offset to the maximum of a parabola, [..., (x, y)].

    It is zero where the second derivatives are degenerate.
    """
    det = dxx * dyy - dxy * dxy
    step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], dim=-1)
    known = (det != 0)[..., None]
    return torch.where(known, step / torch.where(known, det[..., None], 1.), 0)


class Keypoints(nn.Module):
    """Keypoints [B, K, 2] in pixels of the image, and their scores [B, K].

    If a map has no positive value, the point has negative coordinates, as in
    MMPose. Subclasses refine the pixel of the maximum.

    Args:
        codec: MMPose's ``MSRAHeatmap`` or ``UDPHeatmap``.
    """
    names = ('keypoints', 'scores')
    scale: Tensor

    def __init__(self, codec):
        super().__init__()
        width, height = codec.heatmap_size
        self.width, self.height = int(width), int(height)
        scale = torch.tensor(codec.input_size, dtype=torch.float32)
        self.register_buffer('scale', scale / self.steps())

    def steps(self) -> Tensor:
        """Return the size of the image in pixels of a map, (x, y)."""
        return torch.tensor([self.width, self.height])

    def forward(self, maps: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        place, score = peaks(maps)
        x, y = place % self.width, place // self.width
        point = torch.stack([x, y], dim=-1) + self.refine(maps, place, x, y)
        point = torch.where((score > 0)[..., None], point, -1.)
        return point * self.scale, score

    def refine(self, maps: Tensor, place: Tensor, x: Tensor,
               y: Tensor) -> Tensor:
        raise NotImplementedError


class QuarterKeypoints(Keypoints):
    """Shift a quarter of a pixel towards the higher neighbour, as in HRNet."""

    def refine(self, maps: Tensor, place: Tensor, x: Tensor,
               y: Tensor) -> Tensor:
        along = look_up(maps, place + 1) - look_up(maps, place - 1)
        down = (
            look_up(maps, place + self.width) -
            look_up(maps, place - self.width))
        # MMPose's bounds, which exclude the first two pixels and the last.
        along = along * ((x > 1) & (x < self.width - 1) & (y > 0))
        down = down * ((y > 1) & (y < self.height - 1) & (x > 0))
        return 0.25 * torch.stack([along, down], dim=-1).sign()


class BlurredKeypoints(Keypoints):
    """Refine on the logarithm of smoothed maps (DARK, CVPR 2020)."""
    kernel: Tensor

    def __init__(self, codec):
        super().__init__(codec)
        kernel = torch.from_numpy(
            cv2.getGaussianKernel(codec.blur_kernel_size, 0)).float()
        self.register_buffer('kernel', kernel[None, None])  # [1, 1, n, 1]

    def smooth(self, maps: Tensor) -> Tensor:
        """Blur the maps, preserving the maximum of each."""
        n = self.kernel.shape[2] // 2
        x = maps.flatten(0, 1)[:, None]
        x = F.conv2d(x, self.kernel, padding=(n, 0))
        x = F.conv2d(x, self.kernel.mT, padding=(0, n))
        x = x.reshape(maps.shape)
        return x * (maps.amax((2, 3), True) / x.amax((2, 3), True))

    def refine(self, maps: Tensor, place: Tensor, x: Tensor,
               y: Tensor) -> Tensor:
        log = self.smooth(maps).clamp(min=1e-10).log()

        def at(right: int, down: int) -> Tensor:
            return look_up(log, place + right + down * self.width)

        step = newton_step(
            (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2,
            (at(2, 0) - 2 * at(0, 0) + at(-2, 0)) / 4,
            (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4,
            (at(0, 2) - 2 * at(0, 0) + at(0, -2)) / 4)
        inside = (x > 1) & (x < self.width - 2)
        inside = inside & (y > 1) & (y < self.height - 2)
        return torch.where(inside[..., None], step, 0.)


class UnbiasedUDPKeypoints(BlurredKeypoints):
    """DARK on UDP's continuous image, as in TransPose and TokenPose."""

    def steps(self) -> Tensor:
        return torch.tensor([self.width - 1, self.height - 1])


class UDPKeypoints(BlurredKeypoints):
    """Refine like DARK, in continuous image coordinates (UDP, CVPR 2020)."""

    def steps(self) -> Tensor:
        return torch.tensor([self.width - 1, self.height - 1])

    def refine(self, maps: Tensor, place: Tensor, x: Tensor,
               y: Tensor) -> Tensor:
        log = self.smooth(maps).clamp(1e-3, 50.).log()
        log = F.pad(log, (1, 1, 1, 1), mode='replicate')
        width = self.width + 2
        place = x + 1 + (y + 1) * width

        def at(right: int, down: int) -> Tensor:
            return look_up(log, place + right + down * width)

        middle, left, right = at(0, 0), at(-1, 0), at(1, 0)
        above, below = at(0, -1), at(0, 1)
        corner = (
            at(1, 1) - right - below + 2 * middle - left - above + at(-1, -1))
        tiny = torch.finfo(torch.float32).eps  # MMPose's regularization
        return newton_step((right - left) / 2, (below - above) / 2,
                           right - 2 * middle + left + tiny, corner / 2,
                           below - 2 * middle + above + tiny)


class Labels(nn.Module):
    """Label of each pixel of the image, [B, h, w].

    Args:
        head: MMSegmentation's decode head.
    """
    names = ('labels', )

    def __init__(self, head):
        super().__init__()
        self.align_corners, self.threshold = head.align_corners, head.threshold
        self.dtype = torch.uint8 if head.num_classes <= 256 else torch.int32

    def forward(self, logits: Tensor, image: Tensor) -> tuple[Tensor]:
        logits = F.interpolate(
            logits,
            image.shape[-2:],
            mode='bilinear',
            align_corners=self.align_corners)
        if logits.shape[1] == 1:
            labels = logits[:, 0].sigmoid() > self.threshold
        else:
            labels = logits.argmax(dim=1)
        return labels.to(self.dtype),


class Probabilities(nn.Module):
    """Probability of each class, [B, K]."""
    names = ('scores', )

    def forward(self, logits: Tensor, image: Tensor) -> tuple[Tensor]:
        return logits.softmax(dim=1),


class Boxes(nn.Module):
    """Boxes [B, N, 4] in pixels of the image, and their scores [B, N, K].

    All N priors are decoded: the caller selects by scores and suppresses
    overlapping boxes. Boxes outside of the image have a score of zero.

    Args:
        head: MMDetection's head of one of the :func:`one_stage` detectors.
    """
    names = ('boxes', 'scores')

    def __init__(self, head: Any):
        super().__init__()
        # In a tuple, since its layers are those of the network already.
        self.head = (head, )

    def by_prior(self, maps: Sequence[Tensor], channels: int) -> Tensor:
        """Return maps [B, A * channels, H, W] of all levels by prior."""
        return torch.cat([
            x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, channels)
            for x in maps
        ], 1)  # yapf: disable

    def forward(self, maps: Sequence[Sequence[Tensor]],
                image: Tensor) -> tuple[Tensor, Tensor]:
        head, classes = self.head[0], maps[0]
        scores = self.by_prior(classes, head.cls_out_channels)
        if head.use_sigmoid_cls:
            scores = scores.sigmoid()
        else:
            scores = scores.softmax(-1)[..., :-1]
        if len(maps) > 2:
            scores = scores * self.by_prior(maps[2], 1).sigmoid()
        priors = torch.cat(head.prior_generator.grid_priors(
            [x.shape[-2:] for x in classes], classes[0].dtype,
            classes[0].device))  # yapf: disable
        coder = head.bbox_coder
        steps = self.by_prior(maps[1], coder.encode_size)
        flat = steps.flatten(0, 1)  # coders of anchors know no batches
        priors = priors.expand(steps.shape[0], -1, -1).flatten(0, 1)
        boxes = coder.decode(priors, flat).reshape(steps.shape[0], -1, 4)
        height, width = image.shape[-2:]
        boxes = torch.stack([
            boxes[..., i].clamp(0, width if i % 2 == 0 else height)
            for i in range(4)
        ], -1)
        inside = (boxes[..., 2:] > boxes[..., :2]).all(-1, True)
        return boxes, torch.where(inside, scores, 0.)


def one_stage(model: Any) -> Any:
    """Return the head of a detector that predicts a box for each prior.

    Raises:
        ValueError: If it selects regions inside the network or decodes in
            another way than MMDetection's dense heads.
    """
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
    head = getattr(model, 'bbox_head', None)
    words = ('predict_by_feat', '_predict_by_feat_single')
    if not isinstance(head, BaseDenseHead) or any(
            getattr(type(head), word) is not getattr(BaseDenseHead, word)
            for word in words):
        raise ValueError(
            f'{type(model).__name__} cannot be exported: it does not predict '
            'one box for each prior, as RetinaNet, FCOS and ATSS do')
    return head


def level_names(head: Any) -> list[str]:
    """Return the names of a head's maps, ``cls_score_0`` and so on."""
    levels = head.prior_generator.num_levels
    weight = next(head.parameters())
    smallest = [weight.new_zeros(1, head.in_channels, 1, 1)] * levels
    with torch.no_grad():
        number = len(head(smallest))
    return [f'{name}_{i}' for name in LEVEL_MAPS[:number]
            for i in range(levels)]  # yapf: disable


def keypoints_of(codec) -> Keypoints:
    """Return the decoder module for one of MMPose's codecs.

    Raises:
        ValueError: If the codec is not supported.
    """
    kind = type(codec).__name__
    if kind == 'MSRAHeatmap':
        return (BlurredKeypoints if codec.unbiased else QuarterKeypoints)(
            codec)
    if kind == 'UnbiasedUDPHeatmap':
        return UnbiasedUDPKeypoints(codec)
    if kind == 'UDPHeatmap' and codec.heatmap_type == 'gaussian':
        return UDPKeypoints(codec)
    raise ValueError(
        f'{kind} is not decoded inside the graph, MSRAHeatmap and UDPHeatmap '
        'of type gaussian are: export without --post and decode the maps')


def slides(model: Any) -> bool:
    """Return whether a segmentor is tested with sliding windows."""
    cfg = getattr(model, 'test_cfg', None) or {}
    return cfg.get('mode') == 'slide'


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Return the starts of the windows along a side, as MMSegmentation does.

    The last window ends at the image border.
    """
    count = max(length - window + stride - 1, 0) // stride + 1
    return [max(min(i * stride, length - window), 0) for i in range(count)]


class SlidingWindows(nn.Module):
    """Average logits [B, K, h, w] over sliding windows of the image.

    For models with ``test_cfg=dict(mode='slide')``; the size of the images
    must be fixed.

    Args:
        model: MMSegmentation's segmentor.
    """

    def __init__(self, model: Any):
        super().__init__()
        self.model = model
        self.window: Sequence[int] = model.test_cfg['crop_size']
        self.stride: Sequence[int] = model.test_cfg['stride']
        self.align_corners: bool = model.decode_head.align_corners

    def forward(self, image: Tensor, **kwargs: Any) -> Tensor:
        B, _, H, W = image.shape
        h, w = min(self.window[0], H), min(self.window[1], W)
        places = [(y, x)
                  for y in window_starts(H, self.window[0], self.stride[0])
                  for x in window_starts(W, self.window[1], self.stride[1])]
        windows = torch.cat([image[..., y:y + h, x:x + w] for y, x in places])
        logits = F.interpolate(
            self.model(windows, **kwargs), (h, w), mode='bilinear',
            align_corners=self.align_corners)  # yapf: disable
        total: Any = 0
        counts = torch.zeros(H, W)
        for part, (y, x) in zip(logits.chunk(len(places)), places):
            total = total + F.pad(part, (x, W - x - w, y, H - y - h))
            counts[y:y + h, x:x + w] += 1
        return total / counts.to(logits)


class Network(nn.Module):
    """A model as one function of the normalized image [B, 3, h, w].

    Args:
        model: Model of one of the four frameworks.
        task: ``pose``, ``seg``, ``cls`` or ``det``.
        post: Return keypoints, labels, probabilities or boxes; otherwise
            heatmaps and logits of stride 4, the logits of an image, or all
            maps of a detector's head.

    Attributes:
        names: Names of the outputs.
    """

    def __init__(self, model: Any, task: str, post: bool):
        super().__init__()
        self.model: nn.Module = (
            SlidingWindows(model) if slides(model) else model)
        self.detects = task == 'det'
        self.names: Sequence[str] = (
            level_names(one_stage(model)) if self.detects else (MAPS[task], ))
        self.last: Any = None
        if post:
            self.last = {
                'pose': lambda: keypoints_of(model.head.decoder),
                'seg': lambda: Labels(model.decode_head),
                'cls': Probabilities,
                'det': lambda: Boxes(model.bbox_head)
            }[task]()
            self.names = self.last.names

    def maps(self, image: Tensor) -> Any:
        """Return the maps or logits of the model, before postprocessing."""
        maps = self.model(image, data_samples=None, mode='tensor')
        if not self.detects and not isinstance(maps, Tensor):
            raise ValueError(f'the network returns a {type(maps).__name__} of '
                             'outputs; only models with one can be exported')
        return maps

    def finish(self, maps: Any, image: Tensor) -> Sequence[Tensor]:
        """Return the outputs by the maps; the image gives the size."""
        if self.last is not None:
            return self.last(maps, image)
        return tuple(chain(*maps)) if self.detects else (maps, )

    def forward(self, image: Tensor) -> Sequence[Tensor]:
        return self.finish(self.maps(image), image)
