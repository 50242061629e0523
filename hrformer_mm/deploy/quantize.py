# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Quantize networks to int8 with NNCF, as far as the metric permits.

If int8 costs more than the permitted loss, the activations with the largest
relative rounding error are kept in higher precision, more of them in each
step.
"""
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope
from mmengine.runner import Runner
from mmengine.utils import scandir
from numpy import ndarray

from ..datasets.validation.common import spread_samples
from ..tasks import best_metric, get_task
from ..utils.config import bare_name
from ..utils.config_checks import check_inputs
from ..utils.dataset_leaves import metainfo_of, steps_of_test
from .runtimes import HINT, Session, has_bf16, plug_in

# Shares of the activations to keep in higher precision, one after the other.
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
RANKED = 8  # images with which rounding errors are measured
TIMED, ROUNDS = 4, 5  # images at once and rounds to compare speeds with
IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')


def prepared(model: Any, sample: dict) -> ndarray:
    """Return the normalized image [1, 3, h, w] of a sample."""
    data = model.data_preprocessor(pseudo_collate([sample]), False)
    return data['inputs'].numpy()


def folder_images(cfg: Config, model: Any, folder: str | os.PathLike,
                  samples: int) -> list[ndarray]:
    """Prepare images of a folder with the test pipeline of a config.

    For pose, each image is the box of one object.

    Raises:
        ValueError: If there are no images.
    """
    paths = sorted(scandir(folder, IMAGES, recursive=True,
                           case_sensitive=False))  # yapf: disable
    if not paths:
        raise ValueError(f'{folder} has no images to calibrate with')
    load, *steps = steps_of_test(cfg)
    steps = [s for s in steps
             if not bare_name(s['type']).startswith('LoadAnnotation')]
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        load, rest = TRANSFORMS.build(load), Compose(steps)
    meta, found = metainfo_of(cfg), []
    for i in spread_samples(len(paths), samples):
        path = str(Path(folder, paths[i]))
        sample = load(dict(meta, img_path=path, img_id=i))
        height, width = sample['img'].shape[:2]
        box = np.array([[0, 0, width, height]], np.float32)
        sample.update(bbox=box, bbox_score=np.ones(1, np.float32))
        found.append(prepared(model, rest(sample)))
    return found


class Validation:
    """The metric of a config on its validation data, in points of 100.

    EPE, the error of keypoints, is in pixels.

    Args:
        cfg: Config with ``val_dataloader`` and ``val_evaluator``.

    Raises:
        FileNotFoundError: If the data are missing.
        ValueError: If the config has no validation.
    """

    def __init__(self, cfg: Config):
        if not (cfg.get('val_dataloader') and cfg.get('val_evaluator')):
            raise ValueError(f'{cfg.filename} has no val_dataloader and '
                             'val_evaluator to calibrate with')
        check_inputs(cfg, 'val_dataloader')
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            self.model = MODELS.build(cfg.model).eval()
            self.loader = Runner.build_dataloader(cfg.val_dataloader)
            self.evaluator = Evaluator(cfg.val_evaluator)
        self.dataset: Any = self.loader.dataset
        self.evaluator.dataset_meta = self.dataset.metainfo
        task = get_task(cfg)
        named, smaller_is_better = best_metric(cfg)
        self.is_named = named is not None
        self.name: str = named or task.metric
        self.is_percent = task.name in ('seg', 'cls')  # of their metrics
        self.sign = -1 if smaller_is_better else 1

    @property
    def scale(self) -> int:
        """Factor from the metric to points, of which more are better."""
        is_pixels = self.name.rpartition('/')[2] == 'EPE'
        return self.sign * (1 if self.is_percent or is_pixels else 100)

    def images(self, samples: int) -> list[ndarray]:
        """Return normalized images [1, 3, h, w], spread over the data."""
        chosen = spread_samples(len(self.dataset), samples)
        return [prepared(self.model, self.dataset[i]) for i in chosen]

    @torch.inference_mode()
    def __call__(self, session: Session) -> float:
        """Evaluate a network; more is better."""
        plug_in(self.model, session)
        for data in self.loader:
            self.evaluator.process(self.model.val_step(data), data)
        found = self.evaluator.evaluate(len(self.dataset))
        if self.name not in found and not self.is_named:
            self.name = next(iter(found))  # as save_best='auto'
        if self.name not in found:
            raise ValueError(f'the metric {self.name!r} is not among '
                             f'{sorted(found)}: set default_hooks.checkpoint.'
                             'save_best to one of them')
        return self.scale * float(found[self.name])


def quantizers(model: Any) -> list[Any]:
    """Return the operators that round activations or weights to int8."""
    return [op for op in model.get_ordered_ops()
            if op.get_type_name() == 'FakeQuantize']  # yapf: disable


def rounding_errors(model: Any, images: Sequence[ndarray]) -> list[float]:
    """Return the mean relative error of each quantizer on some images."""
    import openvino
    from openvino import opset13 as ops
    probe, errors = model.clone(), []
    for op in quantizers(probe):
        x, y = op.input_value(0), op.output(0)
        axes = list(range(x.get_partial_shape().rank.get_length()))
        apart = ops.subtract(y, x)
        noise, signal = (
            ops.reduce_sum(ops.multiply(z, z), ops.constant(axes), False)
            for z in (apart, x))
        tiny = ops.constant(np.float32(1e-20))
        errors.append(ops.divide(noise, ops.add(signal, tiny)).output(0))
    count = len(probe.outputs)
    probe.add_outputs(errors)
    run = openvino.Core().compile_model(probe, 'CPU', {HINT: 'f32'})
    found = [list(run(x).values())[count:] for x in images]
    return np.mean(np.array(found, np.float64), axis=0).tolist()


def without(model: Any, dropped: Sequence[int]) -> Any:
    """Return a copy of a model without some of its quantizers."""
    model = model.clone()
    operators = quantizers(model)
    for i in dropped:
        operators[i].output(0).replace(operators[i].input_value(0))
    model.validate_nodes_and_infer_types()
    return model


def quantize(model: Any,
             images: Sequence[ndarray],
             evaluate: Callable[[Session], float] | None = None,
             max_drop: float = 0.5) -> tuple[Any, list[str]]:
    """Quantize a network to int8.

    Args:
        model: Model of OpenVINO.
        images: Normalized images [1, 3, h, w] for the calibration.
        evaluate: Returns the metric of a network in points; more is better.
            Its ``name`` is that of the metric.
        max_drop: Maximum loss of the metric in points.

    Returns:
        The quantized model, and notes for the user.

    Raises:
        ValueError: If it loses more, even with half of the activations in
            higher precision.
    """
    import nncf
    before = evaluate(Session(model, 'openvino', 'fp32')) if evaluate else 0.
    whole = nncf.quantize(
        model,
        nncf.Dataset(images),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(images))
    if evaluate is None:
        return whole, [f'calibrated with {len(images)} images; the accuracy '
                       'was not measured, as a folder has no labels']
    total, found, kept = len(quantizers(whole)), whole, 0
    after = evaluate(Session(found, 'openvino', 'int8'))
    steps = [ceil(share * total) for share in SHARES]
    errors = rounding_errors(whole, images[:RANKED]) if not (
        before - after <= max_drop) else []
    worst = sorted(range(len(errors)), key=errors.__getitem__, reverse=True)
    while steps and not before - after <= max_drop:  # also true for NaN
        kept = steps.pop(0)
        found = without(whole, worst[:kept])
        after = evaluate(Session(found, 'openvino', 'int8'))
    name = getattr(evaluate, 'name', 'metric')
    text = (f'{name}: {abs(before):.2f} in float32, {abs(after):.2f} in int8 '
            f'with {kept} of {total} activations in higher precision')
    if not before - after <= max_drop:
        raise ValueError(f'{text}: the loss is more than --max-drop '
                         f'{max_drop:g}, nothing was written; use --precision '
                         'bf16, more --samples or a larger --max-drop')
    return found, [text, f'calibrated with {len(images)} images']


def speed_note(model: Any, quantized: Any, image: ndarray) -> str:
    """Compare the speed of int8 on this CPU with that of bf16, or of float32.

    Args:
        model: Model of OpenVINO.
        quantized: The same in int8.
        image: Normalized image [1, 3, h, w].
    """
    other = 'bf16' if has_bf16() else 'fp32'
    runs = [Session(network, 'openvino', precision) for network, precision in (
        (model, other), (quantized, 'int8'))]
    batch = np.repeat(image, TIMED, 0)
    seconds: list[list[float]] = []
    for _ in range(ROUNDS):
        seconds.append([])
        for run in runs:
            run(batch)  # idle threads of the other one slow down the first
            start = time.perf_counter()
            run(batch)
            seconds[-1].append(time.perf_counter() - start)
    ratio = float(np.median([a / b for a, b in seconds]))
    text = f'int8 is {ratio:.2f} times as fast as {other} on this CPU'
    if ratio < 1:
        text += f', so --precision {other} is the better choice for it'
    return text


@dataclass
class Calibration:
    """Data to quantize a network with, and what came out.

    Args:
        images: Normalized images [1, 3, h, w].
        options: Further arguments of :func:`quantize`.
    """
    images: Sequence[ndarray]
    options: dict[str, Any]
    notes: Sequence[str] = ()

    @classmethod
    def find(cls, cfg: Config, model: Any,
             source: Config | str | os.PathLike, samples: int,
             max_drop: float) -> 'Calibration':
        """Prepare images of a folder, or the validation of a config."""
        if not isinstance(source, Config):
            return cls(folder_images(cfg, model, source, samples), {})
        validation = Validation(source)
        return cls(
            validation.images(samples),
            dict(evaluate=validation, max_drop=max_drop))

    def __call__(self, model: Any) -> Any:
        """Quantize a model of OpenVINO."""
        quantized, notes = quantize(model, self.images, **self.options)
        self.notes = [*notes, speed_note(model, quantized, self.images[0])]
        return quantized
