# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Predict from a config and a checkpoint, the same for all tasks."""
import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope
from numpy import ndarray
from PIL import UnidentifiedImageError
from PIL.Image import DecompressionBombError

from ..checkpoints.loading import load_weights
from ..core.hrformer import HRFormer
from ..deploy import optimize
from ..deploy.backends import dataset_meta, open_network
from ..deploy.runtimes import plug_in
from ..utils.cli import one_line
from ..utils.config import bare_name
from ..utils.dataset_leaves import metainfo_of, steps_of_test
from .decode import read_image
from .images import Results, to_frame, to_list
from .inputs import Frame, Log, Source

# One frame, the samples of its pipeline and the results so far.
Waiting = tuple[Frame, list[dict], list[Any]]
# A sample, and the list that its result is appended to.
Item = tuple[dict, list[Any]]


class OutOfMemory(ValueError):
    """A batch does not fit into the memory of the device."""


def choose_device(name: str | None) -> str:
    """Return the given device, or the best available one.

    Raises:
        ValueError: If the device is not available.
    """
    name = name or get_device()
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(f'device {name!r} is not available; use --device '
                         'cpu') from None
    return name


def loads_colors(load: Any) -> bool:
    """Whether a loader of a pipeline reads colours of 8 bits, as Pillow."""
    return (isinstance(load, LoadImageFromFile) and not load.to_float32
            and load.color_type == 'color'
            and load.imdecode_backend in ('cv2', 'turbojpeg', 'pillow'))


class Predictor:
    """A trained model that predicts on images.

    Subclasses define for their task the samples of a frame
    (:meth:`samples`), the combined result (:meth:`gather`), and how to draw
    and record it. :func:`hrformer_mm.apis.load_predictor` selects the
    subclass for a config.

    Args:
        cfg: Config of a model, with the pipeline of its test data.
        weights: Path of the checkpoint, in any layout.
        device: Device to run on; by default the best available one.
        batch_size: Number of images, or people, in a batch.
        backend: Runtime of the network, see
            :func:`hrformer_mm.deploy.backends.open_network`; by default that
            of the file.
        precision: Precision of OpenVINO, ``fp32`` or ``bf16``.

    Attributes:
        meta: Classes, keypoints and colours.
        files: Names of the JSON files that are written.
        has_labels: Whether results are images themselves.
        notes: Notes for the user, before the first frame.
        problems: Warnings about how the predictor was made.
    """
    unit = 'images'
    default_batch = 32
    files: tuple[str, ...] = ('predictions.json', )
    has_labels = False
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    warn: Log = staticmethod(warnings.warn)

    def __init__(self,
                 cfg: Config,
                 weights: str | os.PathLike,
                 device: str | None = None,
                 batch_size: int | None = None,
                 backend: str = 'auto',
                 precision: str | None = None):
        if not cfg.get('test_dataloader'):
            raise ValueError(f'{cfg.filename} has no test_dataloader, whose '
                             'pipeline prepares images')
        session, note = open_network(cfg, weights, backend, precision)
        self.notes = (note, )
        if session and device not in (None, 'cpu'):
            raise ValueError(f'{note}: it runs on the CPU, got device '
                             f'{device!r}; use --backend torch')
        self.device = choose_device('cpu' if session else device)
        self.batch_size = batch_size or self.default_batch
        load, *steps = steps_of_test(cfg)
        steps = [step for step in steps if not bare_name(
            step['type']).startswith(('LoadAnnotation', 'LoadBiomedicalAnn'))]
        # Models of several frameworks may coexist in one process.
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            model = MODELS.build(cfg.model)
            self.load = TRANSFORMS.build(load)
            self.pipeline = Compose(steps)
        if session:
            plug_in(model, session)
            meta = dataset_meta(session)
        else:
            meta = load_weights(model, weights)
        self.meta = {**metainfo_of(cfg), **meta}
        model.to(self.device).eval()
        if isinstance(getattr(model, 'backbone', None), HRFormer):
            model = optimize(model)
        self.model = model

    def read(self, path: str) -> ndarray:
        """Read an image as a viewer shows it: for our configs, 8 bits, BGR.

        A config that loads its images in another way, such as with 16 bits,
        reads them itself.

        Raises:
            OSError: If the file cannot be read or is not an image.
        """
        with open(path, 'rb'):  # the frameworks' errors lack the reason
            pass
        if loads_colors(self.load):  # OpenCV reads what Pillow does not know
            with suppress(UnidentifiedImageError, DecompressionBombError):
                return read_image(path)
        try:
            return self.load(dict(img_path=path))['img']
        except Exception:
            raise OSError(f'{path} is damaged or not an image') from None

    def pack(self, frame: Frame, **more: Any) -> dict:
        """Return the sample of an image that has been read."""
        size = frame.image.shape[:2]
        return self.pipeline(
            dict(img=frame.image, img_path=frame.source.path, img_shape=size,
                 ori_shape=size, **more))

    def samples(self, frame: Frame) -> list[dict]:
        """Return the samples of a frame; none if there are no objects."""
        return [self.pack(frame)]

    def gather(self, frame: Frame, results: list[Any]) -> Any:
        """Combine the results of the samples of a frame."""
        raise NotImplementedError

    def draw(self, frame: Frame, found: Any) -> ndarray:
        """Draw a result on its frame, [H, W, 3] uint8, BGR."""
        raise NotImplementedError

    def record(self, frame: Frame, found: Any) -> dict:
        """Return the record of a result for a JSON file."""
        raise NotImplementedError

    def documents(self, records: list[dict]) -> dict[str, Any]:
        """Return the contents of the JSON files, by name, from all records."""
        raise NotImplementedError

    def pictures(self, frame: Frame, found: Any) -> dict[str, ndarray]:
        """Return results that are images, by path without extension."""
        return {}

    def complaints(self) -> list[str]:
        """Return the errors found, after the last frame."""
        return []

    def expect(self, sources: Iterable[Source], warn: Log):
        """Register all images before the first prediction.

        Args:
            sources: Inputs, as far as they are known.
            warn: Called with a message for each ambiguous image.
        """
        self.warn = warn

    def report(self) -> list[str]:
        """Return the notes for the user, after the last frame."""
        return []

    def __call__(self, images: Any) -> Results:
        """Predict on images and return their results, in their order.

        Args:
            images: A path, an array [H, W, 3] of uint8 with channels in order
                BGR, a PIL image, or an iterable of these. An array
                [N, H, W, 3] is N images.

        Returns:
            An iterator with one result for each image. The attributes of the
            result of a single image can be taken from it directly.

        Raises:
            TypeError: If an input is not an image.
            ValueError: If an array has a wrong type, range or shape.
        """
        several, is_single = to_list(images)
        names = map(str, count())
        if isinstance(several, (list, tuple)):
            self.expect(
                [Source(os.fspath(image), '', 'image') for image in several
                 if isinstance(image, (str, os.PathLike))],
                warnings.warn)  # yapf: disable
        else:
            self.expect([], warnings.warn)
        frames = (to_frame(image, next(names), self.read)
                  for image in several)
        return Results((found for _, found in self.run(frames)), is_single)

    def run(self,
            frames: Iterable[Frame],
            failed: Log | None = None) -> Iterator[tuple[Frame, Any]]:
        """Yield frames with their results, in their order.

        A batch combines samples of several frames, as long as they have the
        same size. Frames of a camera are not delayed.

        Args:
            frames: Frames of any sizes and sources.
            failed: Called with a message for each frame that fails; the
                others continue. By default the error is raised.
        """
        waiting: deque[Waiting] = deque()
        batch: list[Item] = []
        for frame in frames:
            try:
                samples = self.samples(frame)
            except Exception as error:
                if failed is None:
                    raise
                failed(f'{frame.label}: {one_line(error)}')
                continue
            results: list[Any] = []
            waiting.append((frame, samples, results))
            for sample in samples:
                if batch and sample['inputs'].shape != batch[0][0][
                        'inputs'].shape:
                    self.infer(batch, failed)
                batch.append((sample, results))
                if len(batch) >= self.batch_size:
                    self.infer(batch, failed)
            if frame.source.kind == 'camera':
                self.infer(batch, failed)
            yield from self.done(waiting, failed)
        self.infer(batch, failed)
        yield from self.done(waiting, failed)

    def infer(self, batch: list[Item], failed: Log | None = None):
        """Run the model on a batch, append its results and empty it.

        If ``failed`` is given, a batch that fails is retried in halves; the
        result of a sample that fails alone is its error.

        Raises:
            ValueError: If the device runs out of memory.
        """
        if not batch:
            return
        try:
            found: Sequence[Any] = self.forward([s for s, _ in batch])
        except Exception as error:
            if failed is None:
                raise
            if len(batch) > 1:
                middle = len(batch) // 2
                if isinstance(error, OutOfMemory):
                    self.warn(one_line(error))
                    self.batch_size = min(self.batch_size, middle)
                self.infer(batch[:middle], failed)
                self.infer(batch[middle:], failed)
                batch.clear()
                return
            found = [error]
        for result, (_, results) in zip(found, batch):
            results.append(result)
        batch.clear()

    @torch.inference_mode()
    def forward(self, samples: list[dict]) -> list[Any]:
        """Run the model on samples of one size.

        Raises:
            OutOfMemory: If the device runs out of memory.
        """
        data = pseudo_collate(samples)
        try:
            found = self.model.test_step(data)
        except torch.cuda.OutOfMemoryError:
            raise OutOfMemory(
                f'{len(samples)} {self.unit} at once do not fit into the '
                f'memory of {self.device}; try a smaller --batch-size'
            ) from None
        return [self.keep(result) for result in found]

    def keep(self, result: Any) -> Any:
        """Return the part of a result to keep until its frame is complete."""
        return result

    def done(self, waiting: deque[Waiting],
             failed: Log | None) -> Iterator[tuple[Frame, Any]]:
        """Yield and remove the leading frames whose results are complete."""
        while waiting and len(waiting[0][1]) == len(waiting[0][2]):
            frame, _, results = waiting.popleft()
            try:
                for result in results:
                    if isinstance(result, Exception):
                        raise result
                found = self.gather(frame, results)
            except Exception as error:
                if failed is None:
                    raise
                failed(f'{frame.label}: {one_line(error)}')
            else:
                yield frame, found
