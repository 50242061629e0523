# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""From a config and weights to predictions, the same for all three tasks."""
import os
import warnings
from collections import deque
from itertools import count
from typing import (Any, Deque, Dict, Iterable, Iterator, List, Optional,
                    Sequence, Tuple, Union)

import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope
from numpy import ndarray

from ..checkpoints.loading import load_weights
from ..core.hrformer import HRFormer
from ..deploy import optimize
from ..utils.cli import one_line
from ..utils.config import bare_name
from ..utils.dataset_leaves import data_of
from .images import Results, to_frame, to_list
from .inputs import Frame, Source, Tell

# One frame with what its pipeline gave and the results that have come so far.
Waiting = Tuple[Frame, List[dict], List[Any]]
# A sample, and the list that takes its result.
Item = Tuple[dict, List[Any]]


class OutOfMemory(ValueError):
    """A batch does not fit into the memory of the device."""


def choose_device(name: Optional[str]) -> str:
    """The device of that name, or the best there is.

    Raises:
        ValueError: If there is no such device here.
    """
    name = name or get_device()
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(f'there is no device {name!r} here; --device cpu '
                         'takes the processor') from None
    return name


class Predictor:
    """A trained model that takes images and gives what is in them.

    Subclasses say, for their task, what the model gets of a frame
    (:meth:`samples`), what it found (:meth:`gather`), and how that is drawn
    and written down. :func:`hrformer_mm.apis.load_predictor` picks the one of
    a config.

    Args:
        cfg: Config of a model, with the pipeline of its test data.
        weights: Path of its checkpoint, of any layout.
        device: Default: the best there is.
        batch_size: Images, or people, that the model gets at once.

    Attributes:
        meta: Classes, keypoints and colours.
        files: Names of the JSON files that are written.
        has_labels: Whether results are images themselves.
        notes: What the user should know before.
    """
    unit = 'images'
    default_batch = 32
    files: Tuple[str, ...] = ('predictions.json', )
    has_labels = False
    notes: Tuple[str, ...] = ()
    warn: Tell = staticmethod(warnings.warn)

    def __init__(self,
                 cfg: Config,
                 weights: Union[str, os.PathLike],
                 device: Optional[str] = None,
                 batch_size: Optional[int] = None):
        if not cfg.get('test_dataloader'):
            raise ValueError(f'{cfg.filename} has no test_dataloader, whose '
                             'pipeline prepares images')
        self.device = choose_device(device)
        self.batch_size = batch_size or self.default_batch
        load, *steps = cfg.test_dataloader.dataset.pipeline
        steps = [step for step in steps if not bare_name(
            step['type']).startswith(('LoadAnnotation', 'LoadBiomedicalAnn'))]
        # Models of several frameworks may live in one process.
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            model = MODELS.build(cfg.model)
            self.load = TRANSFORMS.build(load)
            self.pipeline = Compose(steps)
        self.meta = {**data_of(cfg), **load_weights(model, weights)}
        model.to(self.device).eval()
        if isinstance(getattr(model, 'backbone', None), HRFormer):
            model = optimize(model)
        self.model = model

    def read(self, path: str) -> ndarray:
        """An image as the config reads it: for ours, 8 bits, blue first.

        Raises:
            OSError: If it cannot be read, or is no image.
        """
        with open(path, 'rb'):  # the frameworks' words do not tell what it is
            pass
        try:
            return self.load(dict(img_path=path))['img']
        except Exception:
            raise OSError(f'{path} is damaged or no image') from None

    def pack(self, frame: Frame, **more: Any) -> dict:
        """What the model gets of an image that has been read."""
        size = frame.image.shape[:2]
        return self.pipeline(
            dict(img=frame.image, img_path=frame.source.path, img_shape=size,
                 ori_shape=size, **more))

    def samples(self, frame: Frame) -> List[dict]:
        """What the model gets of a frame; nothing if there is nobody."""
        return [self.pack(frame)]

    def gather(self, frame: Frame, results: List[Any]) -> Any:
        """What was found in a frame, from the results of its samples."""
        raise NotImplementedError

    def draw(self, frame: Frame, found: Any) -> ndarray:
        """The frame with what was found, [H, W, 3] uint8, blue first."""
        raise NotImplementedError

    def record(self, frame: Frame, found: Any) -> dict:
        """What was found in a frame, for a JSON file."""
        raise NotImplementedError

    def documents(self, records: List[dict]) -> Dict[str, Any]:
        """Contents of the JSON files, by name, from all records."""
        raise NotImplementedError

    def pictures(self, frame: Frame, found: Any) -> Dict[str, ndarray]:
        """Images that are results themselves, by path without ending."""
        return {}

    def complaints(self) -> List[str]:
        """What was not as it should be, in the end."""
        return []

    def expect(self, sources: Iterable[Source], warn: Tell):
        """Announce all images before the first is predicted on.

        Args:
            sources: As far as they are known.
            warn: Called with a line for what is unclear about an image.
        """
        self.warn = warn

    def report(self) -> List[str]:
        """Return what the user should know, after the last frame."""
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
            TypeError: For what is not an image.
            ValueError: For an array with a wrong type, range or shape.
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
            failed: Optional[Tell] = None) -> Iterator[Tuple[Frame, Any]]:
        """Yield frames with their results, in their order.

        A batch takes samples of several frames, as long as they are of one
        size. Those of a camera are not kept waiting.

        Args:
            frames: Frames of any sizes and sources.
            failed: Called with a line for each frame that fails; the others
                are predicted on. Default: the error is raised.
        """
        waiting: Deque[Waiting] = deque()
        batch: List[Item] = []
        for frame in frames:
            try:
                samples = self.samples(frame)
            except Exception as error:
                if failed is None:
                    raise
                failed(f'{frame.label}: {one_line(error)}')
                continue
            results: List[Any] = []
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

    def infer(self, batch: List[Item], failed: Optional[Tell] = None):
        """Run the model on a batch, hand its results out and empty it.

        A batch that fails is tried again in halves if ``failed`` is given;
        the result of a sample that fails alone is its error.

        Raises:
            ValueError: If the device has not enough memory.
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
    def forward(self, samples: List[dict]) -> List[Any]:
        """Run the model on samples of one size.

        Raises:
            OutOfMemory: If the device has not enough memory.
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
        """Return what is kept of a result until its frame is complete."""
        return result

    def done(self, waiting: Deque[Waiting],
             failed: Optional[Tell]) -> Iterator[Tuple[Frame, Any]]:
        """Take out the frames at the front whose results are all there."""
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
