# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Outputs and gradients of the authors' code, kept small.

A file below ``tests/data/golden`` holds the names, shapes and types of an
official state dict and samples of what the official code computed from it.
The weights themselves are regenerated bit by bit from the names of the
tensors, see :func:`fill` and ``tests/data/golden/README.md``.
"""
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hrformer_mm.checkpoints import convert
from hrformer_mm.core.ocr import OCR

FOLDER = Path(__file__).parent / 'data/golden'
NAMES = sorted(path.stem for path in FOLDER.glob('*.npz'))
SAMPLES = 2048


def fill(name: str,
         shape: Sequence[int],
         dtype: str,
         grid: Sequence[int] | None = None) -> np.ndarray:
    """Make one tensor of an official state dict from its name and shape.

    Args:
        grid: Height and width of the map that sines of positions belong to.
    """
    shape = tuple(shape)
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith('relative_position_index'):
        window = round(shape[0]**.5)
        y, x = np.divmod(np.arange(window * window), window)
        rows = y[:, None] - y + window - 1
        return rows * (2 * window - 1) + x[:, None] - x + window - 1
    if name.endswith('pos_embedding'):
        return sines(shape, grid or ())
    if 'int' in dtype:  # num_batches_tracked
        return np.zeros(shape, dtype)
    is_weight = name.endswith('weight')
    if name.endswith('running_var') or (len(shape) == 1 and is_weight):
        return rng.uniform(.5, 1.5, shape).astype('float32')
    if name.endswith(('bias_table', 'cls_token', 'keypoint_token', 'pos_embed',
                      'query_embed.weight')):
        scale = .5
    elif len(shape) > 1:  # four axes: convolutions, which ReLU follows
        variance = .5 if len(shape) == 4 else 1.
        scale = (variance / np.prod(shape[1:]))**.5
    else:
        scale = .2 if name.endswith('running_mean') else .1
    return (rng.standard_normal(shape) * scale).astype('float32')


def sines(shape: Sequence[int], grid: Sequence[int]) -> np.ndarray:
    """Positions of TransPose and TokenPose: sines of rows, then of columns."""
    k = np.arange(shape[-1] // 2)
    period = 1e4**(k // 2 * 2 / len(k))
    angles = [
        np.arange(1, n + 1)[:, None] / n * 2 * np.pi / period for n in grid
    ]
    y, x = (np.where(k % 2, np.cos(a), np.sin(a)) for a in angles)
    y, x = np.broadcast_arrays(y[:, None], x[None])
    return np.concatenate([y, x], -1).reshape(shape).astype('float32')


def sample(x: Tensor) -> Tensor:
    """At most :data:`SAMPLES` values of a tensor, evenly spaced."""
    index = np.linspace(0, x.numel() - 1, min(x.numel(), SAMPLES)).astype(int)
    return x.detach().reshape(-1)[torch.from_numpy(index)]


def distance(x: Tensor, reference: Tensor) -> float:
    """Relative L2 distance."""
    x, reference = x.double(), reference.double()
    return ((x - reference).norm() / reference.norm()).item()


class Golden(NamedTuple):
    """One golden file.

    Attributes:
        meta: What made it; see README.md beside the files.
        arrays: Samples of outputs and gradients by name.
    """
    meta: dict
    arrays: dict[str, Tensor]

    @classmethod
    def read(cls, name: str) -> 'Golden':
        with np.load(FOLDER / f'{name}.npz') as file:
            arrays = {k: file[k] for k in file.files}
        meta = json.loads(bytes(arrays.pop('meta')))
        return cls(meta, {k: torch.from_numpy(v) for k, v in arrays.items()})

    def state_dict(self) -> dict[str, Tensor]:
        """The official state dict, with the authors' names.

        Raises:
            AssertionError: If the recipe was not followed bit by bit.
        """
        crc, state = 0, {}
        for name, shape, dtype in self.meta['state']:
            array = np.array(fill(name, shape, dtype, self.meta.get('grid')))
            if not name.endswith('pos_embedding'):  # equal to 1e-6 only
                crc = zlib.crc32(array.tobytes(), crc)
            state[name] = torch.from_numpy(array)
        assert crc == self.meta['state_crc32']
        return state

    def input(self) -> Tensor:
        rng = np.random.RandomState(zlib.crc32(b'input'))
        shape = self.meta['input']
        return torch.from_numpy(rng.standard_normal(shape).astype('float32'))

    def scalar(self, outputs: dict[str, Tensor]) -> Tensor:
        """The scalar whose gradients are stored."""
        rng = np.random.RandomState(zlib.crc32(b'cotangent'))
        terms: list[Tensor] = []
        for name, made in self.meta['outputs'].items():
            if name in self.meta['in_scalar']:
                c = torch.from_numpy(
                    rng.standard_normal(made['shape']).astype('float32'))
                terms.append((outputs[name] * c.to(outputs[name])).sum())
        return torch.stack(terms).sum()

    def assert_outputs_equal(self, outputs: dict[str, Tensor],
                             norm_tolerance: float = 1e-6):
        """Compare all outputs with the tolerances of the README for float32.

        The whole output is compared by its norm, the sample value by value.
        """
        assert set(outputs) == set(self.meta['outputs'])
        for name, made in self.meta['outputs'].items():
            x, reference = sample(outputs[name]), self.arrays[name]
            assert list(outputs[name].shape) == made['shape'], name
            assert distance(x, reference) <= 5e-6, name
            largest = (x - reference).abs().max() / reference.std()
            assert largest <= 3e-5, name
            norm = outputs[name].detach().double().norm().item()
            assert abs(norm / made['norm'] - 1) <= norm_tolerance, name

    def assert_gradients_equal(self, input_grad: Tensor,
                               grads: dict[str, Tensor], tolerance: float):
        """Compare gradients in the precision that they were computed in.

        Args:
            input_grad: Gradient of :meth:`scalar` for the input.
            grads: Gradients of the parameters by their official names.
            tolerance: Relative; norms of parameters are compared to at least
                1 % of the root mean square of all of them.
        """
        suffix = '_f64' if input_grad.dtype == torch.float64 else ''
        stored = self.arrays[f'input_grad{suffix}']
        assert distance(sample(input_grad), stored) <= tolerance
        norm = input_grad.double().norm().item()
        stored_norm = self.meta['input_grad'][f'norm{suffix}']
        assert abs(norm / stored_norm - 1) <= tolerance
        norms = self.arrays[f'grad_norms{suffix}'].double()
        known = ~norms.isnan()  # NaN for buffers and unused parameters
        names = [
            name for (name, _, _), has in zip(self.meta['state'], known) if has
        ]
        norms = norms[known]
        mine = torch.stack([grads[name].double().norm() for name in names])
        floor = .01 * norms.square().mean().sqrt()
        errors = (mine - norms).abs() / norms.clamp(min=floor)
        worst = int(errors.argmax())
        assert errors[worst] <= tolerance, names[worst]


def outputs_of(model: nn.Module, task: str,
               image: Tensor) -> dict[str, Tensor]:
    """The outputs of a model by their names in the golden files."""
    maps = model.backbone(image)
    found = {f'map{i}': x for i, x in enumerate(maps)}
    if task == 'pose':
        return dict(found, heatmaps=model.head.forward(maps))
    if task == 'cls':
        return dict(found, logits=model.head(model.neck(maps)))
    head = model.decode_head
    logits, aux = OCR.forward(head, maps)
    enlarged = head.enlarge(logits, image.shape[-2:])
    return dict(found, logits=logits, aux=aux, enlarged=enlarged)


def gradients_of(model: nn.Module,
                 golden: Golden,
                 dtype: torch.dtype,
                 device: str = 'cpu') -> tuple[Tensor, dict[str, Tensor]]:
    """Gradients for the input, and for parameters by their official names."""
    task = golden.meta['task']
    model.to(dtype)
    image = golden.input().to(device, dtype).requires_grad_()
    golden.scalar(outputs_of(model, task, image)).backward()
    grads = {k: p.grad for k, p in model.named_parameters()}
    # Renames and splits them as it does weights.
    official, _ = convert(grads, f'official-{task}', model.backbone.arch)
    return image.grad, official
