# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Feature maps of a trained HRFormer: streams, attention and regions.

:func:`look` runs a model on an image and records its feature maps; the
functions below draw them. Letters: B batch, H and W of a map, C channels,
n windows, t tokens of a window, h heads, d channels of a head, K classes.
"""
import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor, nn

from ..core.attention import Attention, WindowAttention
from ..visualization.figures import new_figure
from . import Predictor
from .boxes import WholeImage, make_boxes
from .inputs import Frame, Source

STRIDES = (4, 8, 16, 32)  # of the streams
REGIONS = 8  # classes that are drawn


@dataclass
class View:
    """Feature maps of a model for one image.

    Attributes:
        image: The input image of the model, [H, W, 3] uint8, RGB.
        streams: The branches before the last fusion, each [C, H, W].
        attended: Last block of each stream: its window attention, and the
            input map [1, H, W, C] of that. Empty for convolutions.
        logits: The coarse segmentation behind OCR's regions, [K, H, W].
    """
    image: ndarray
    streams: list[Tensor] = field(default_factory=list)
    attended: list[tuple[WindowAttention, Tensor]] = field(
        default_factory=list)
    logits: Tensor | None = None


class OneBox(WholeImage):
    """The box x, y, width, height of one person."""

    def __init__(self, box: Sequence[float]):
        self.box = [*box, 1.]

    def __call__(self, frame: Frame):
        return make_boxes([self.box], 0)


class Recorder:
    """Record the inputs and outputs of the first call of each module.

    Flip testing calls them again with the mirrored image.
    """

    def __init__(self):
        self.inputs: dict[nn.Module, tuple] = {}
        self.outputs: dict[nn.Module, Tensor] = {}

    def __call__(self, module: nn.Module, inputs: tuple, output: Tensor):
        self.inputs.setdefault(module, inputs)
        self.outputs.setdefault(module, output)


def last_branches(backbone: nn.Module) -> list[Any]:
    """Return the branches of the last module of an HRFormer.

    Raises:
        ValueError: If the backbone has none.
    """
    stages = [getattr(backbone, f'stage{i}', None) for i in (4, 3)]
    found = [s[-1].branches for s in stages if s is not None]
    if not found:
        raise ValueError('the backbone must have parallel streams, got '
                         f'{type(backbone).__name__}')
    return list(found[0])


def look(predictor: Predictor, path: str) -> View:
    """Run a model on an image and record its feature maps.

    Raises:
        OSError: If the image cannot be read.
        ValueError: If the backbone has no streams.
    """
    frame = Frame(Source(path, 'image', 'image'), predictor.read(path))
    sample = predictor.samples(frame)[0]
    branches = last_branches(predictor.model.backbone)
    windows = [b[-1].attn for b in branches if hasattr(b[-1], 'attn')]
    head = getattr(predictor.model, 'decode_head', None)
    ocr = getattr(head, 'ocr', None)
    record = Recorder()
    with ExitStack() as stack:
        for module in (*branches, *windows, *([ocr] if ocr else [])):
            handle = module.register_forward_hook(record)
            stack.callback(handle.remove)
        predictor.infer([(sample, [])])
    return View(
        image=sample['inputs'].numpy().transpose(1, 2, 0)[..., ::-1],
        streams=[record.outputs[b][0].float().cpu() for b in branches],
        attended=[(w, record.inputs[w][0][:1]) for w in windows],
        logits=record.inputs[ocr][1][0].float().cpu() if ocr else None)


def attention_weights(attn: Attention, x: Tensor,
                      mask: Tensor | None = None) -> Tensor:
    """Return attention weights [B*n, h, t, t] of tokens [B*n, t, C]."""
    N, t, C = x.shape
    qkv = attn.qkv(x).view(N, t, 3, attn.heads, C // attn.heads)
    q, k, _ = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # [B*n, h, t, d]
    scores = q @ k.mT / q.shape[-1]**.5
    bias = attn.bias()
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = scores + mask[:, None].repeat(N // len(mask), 1, 1, 1)
    return scores.softmax(dim=-1)


class Cut(nn.Module):
    """Replace attention, to capture the windows that are its input."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        self.windows, self.mask = x, mask
        return x


def cut_windows(window: WindowAttention,
                x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the windows [B*n, t, C] of a map [B, H, W, C], and their mask."""
    window = copy.copy(window)
    cut = Cut()
    window._modules = dict(attn=cut)
    window(x)
    return cut.windows, cut.mask


@torch.no_grad()
def attention_at(window: WindowAttention, x: Tensor, row: int,
                 column: int) -> Tensor:
    """Return the attention of one position to its window, mean over heads.

    Args:
        x: The map, [1, H, W, C].
        row: Row of the position in the map.
        column: Column of the position in the map.

    Returns:
        Weights [H, W]; zero outside the window. They sum to 1 minus the
        weight of padding.
    """
    H, W = x.shape[1:3]
    # Tokens are numbered from 1, so zeros are padding.
    numbers = torch.arange(1., H * W + 1, device=x.device).view(1, H, W, 1)
    numbers = cut_windows(window, numbers)[0][..., 0].long()  # [n, t]
    n, query = (numbers == row * W + column + 1).nonzero()[0]
    windows, mask = cut_windows(window, x)
    shares = attention_weights(window.attn, windows, mask)[n, :, query]
    result = x.new_zeros(H * W + 1)
    result[numbers[n]] = shares.mean(0)
    return result[1:].view(H, W).cpu()


def principal_colors(stream: Tensor) -> ndarray:
    """Map the three principal components of [C, H, W] to colours [H, W, 3]."""
    C, H, W = stream.shape
    pixels = stream.flatten(1).t()
    pixels = pixels - pixels.mean(0)
    values, vectors = torch.linalg.eigh(pixels.t() @ pixels)
    main = vectors[:, -3:].flip(1)
    main = main * torch.where(main.sum(0) < 0, -1., 1.)  # signs are arbitrary
    colors = pixels @ main
    low, high = torch.quantile(colors, torch.tensor([.02, .98]), dim=0)
    colors = (colors - low) / (high - low).clamp_min(1e-9)
    return colors.clamp(0, 1).view(H, W, 3).numpy()


def panels(image: ndarray, count: int, rows: int = 1) -> tuple:
    """Create a figure with panels that fit an image; also return its axes."""
    width, height = 2.6, 2.6 * image.shape[0] / image.shape[1] + .3
    columns = -(-count // rows)
    figure = new_figure(width * columns, height * rows)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel in axes:
        panel.axis('off')
    return figure, axes


def show_map(panel, image: ndarray, values: ndarray, stride: int,
             **style: Any):
    """Show a map [h, w, ...] where its cells lie in the image.

    The last cells exceed an image that is no multiple of the stride.
    """
    height, width = values.shape[:2]
    panel.imshow(values, interpolation='nearest', extent=(
        -.5, width * stride - .5, height * stride - .5, -.5), **style)
    panel.set(xlim=(-.5, image.shape[1] - .5), ylim=(image.shape[0] - .5, -.5))


def lay_over(panel, image: ndarray, heat: ndarray, stride: int):
    """Show a heatmap [h, w] on top of the image in grey."""
    panel.imshow(image.mean(2), cmap='gray', vmin=-80, vmax=335)
    heat = heat / max(heat.max(), 1e-12)
    show_map(panel, image, heat, stride, alpha=.75 * heat**.5,
             cmap='inferno', vmin=0, vmax=1)


def draw_streams(view: View):
    """Draw the streams, coloured by their three principal components."""
    figure, axes = panels(view.image, 1 + len(view.streams))
    axes[0].imshow(view.image)
    axes[0].set_title('image', fontsize=9)
    for panel, stream, stride in zip(axes[1:], view.streams, STRIDES):
        C, H, W = stream.shape
        show_map(panel, view.image, principal_colors(stream), stride)
        panel.set_title(f'{H} x {W}, {C} channels', fontsize=9)
    return figure


def draw_attention(view: View, at: tuple[float, float] = (.5, .5)):
    """Draw the attention of one position in the window of each stream.

    Args:
        at: The position (x, y), relative to the image, from 0 to 1.

    Raises:
        ValueError: If the network has no attention, or ``at`` is outside.
    """
    if not view.attended:
        raise ValueError('this network has no window attention')
    if not all(0 <= f <= 1 for f in at):
        raise ValueError(f'the position must be from 0 to 1, got {at}')
    height, width = view.image.shape[:2]
    figure, axes = panels(view.image, len(view.attended))
    right, down = (min(f * n, n - 1) for f, n in zip(at, (width, height)))
    for panel, (window, x), stride in zip(axes, view.attended, STRIDES):
        heat = attention_at(window, x, int(down / stride),
                            int(right / stride))
        lay_over(panel, view.image, heat.numpy(), stride)
        panel.plot(right, down, 'o', color='#35d0ff', markersize=5,
                   markeredgecolor='white')  # yapf: disable
        panel.set_title(f'stride {stride}, windows of {window.window_size}',
                        fontsize=9)
    return figure


def draw_soft_regions(view: View, names: Sequence[str]):
    """Draw the soft object regions from which OCR pools object features.

    A region is the spatial softmax of a class's coarse logits; the classes
    with the largest area are shown.

    Raises:
        ValueError: If the model has no such head.
    """
    if view.logits is None:
        raise ValueError('this model has no OCR head')
    logits = view.logits
    if len(logits) == 1:  # as the head does with one logit for two classes
        logits = torch.cat([-logits, logits])
    shares = torch.bincount(logits.argmax(0).flatten(), minlength=len(logits))
    order = shares.argsort(descending=True, stable=True)
    shown = [k for k in order.tolist() if shares[k]][:REGIONS]
    figure, axes = panels(view.image, len(shown), 1 + (len(shown) > 4))
    for panel, k in zip(axes, shown):
        region = logits[k].flatten().softmax(0).view(logits.shape[1:])
        lay_over(panel, view.image, region.numpy(), STRIDES[0])
        panel.set_title(names[k], fontsize=9)
    return figure


def draw_all(view: View, at: tuple[float, float],
             names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the name and the figure of each picture that a view supports."""
    yield 'streams', draw_streams(view)
    if view.attended:
        yield 'attention', draw_attention(view, at)
    if view.logits is not None:
        yield 'regions', draw_soft_regions(view, names)
