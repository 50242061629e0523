# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Predict on inputs of all kinds; write images and JSON to a folder."""
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from itertools import groupby
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from mmengine.config import Config
from numpy import ndarray
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ..engine.train import read_config
from ..tasks import get_task
from ..utils.cli import one_line
from ..utils.config import name_types
from .inputs import Frame, Source, find_sources, frame_count, read_frames
from .models import find_weights
from .outputs import Outputs, Window, Write, ending_of
from .predictor import Predictor


def predictor_of(cfg: Config) -> type[Predictor]:
    """Return the predictor class for a config.

    Raises:
        ValueError: If the config belongs to none of the frameworks.
    """
    task = get_task(cfg)
    return getattr(import_module(f'.{task.name}', __package__), task.predictor)


def config_of(config: str | PathLike | Config) -> Config:
    """Return a config, read from its path if needed, with types as names."""
    if isinstance(config, Config):
        return name_types(config)
    return read_config(fspath(config))


def load_predictor(config: str | PathLike | Config,
                   weights: None | str | PathLike = None,
                   **options: Any) -> Predictor:
    """Create the :class:`.predictor.Predictor` for the task of a config.

    Args:
        config: Path of a config, or the config.
        weights: Path of the checkpoint, or of an exported ``.onnx`` or
            ``.xml`` file; default: the released weights.
        **options: ``device``, ``batch_size``, ``backend`` and ``precision``,
            see :class:`.predictor.Predictor`; for pose ``boxes``,
            ``detector``, ``box_threshold``, ``box_categories``,
            ``keypoint_threshold`` and ``smooth``.
    """
    cfg = config_of(config)
    predictor = predictor_of(cfg)(cfg, weights or find_weights(cfg), **options)
    for text in predictor.problems:
        warnings.warn(text, stacklevel=2)
    return predictor


@dataclass
class Outcome:
    """Summary of a prediction run.

    Attributes:
        folder: Output folder.
        frames: Number of frames that were predicted on.
        seconds: Duration, without loading the model.
        failed: A message for each input that could not be read.
        stopped: Whether the user stopped it.
    """
    folder: Path
    frames: int = 0
    seconds: float = 0.
    failed: list[str] = field(default_factory=list)
    stopped: bool = False

    def __str__(self) -> str:
        rate = self.frames / max(self.seconds, 1e-9)
        stopped = ', stopped' if self.stopped else ''
        failed = f', {len(self.failed)} skipped' if self.failed else ''
        return (f'{self.frames} images in {self.seconds:.1f} s '
                f'({rate:.3g} images/s){failed}{stopped}: {self.folder}')


class Rate(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text('' if speed is None else f'{speed:.3g} images/s')


def make_progress(console: Console) -> Progress:
    """Create a progress bar with throughput and ETA, shown on terminals."""
    return Progress(
        TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
        Rate(), TimeRemainingColumn(), console=console,
        disable=not console.is_terminal)  # yapf: disable


def planned(sources: Iterable[Source], task: type[Predictor],
            overlay: bool) -> Iterator[str]:
    """Yield the names of the files and folders that will be written."""
    yield from task.files
    for source in sources:
        if overlay:
            yield f'overlays/{source.name}{ending_of(source)}'
        if task.has_labels:
            ending = '' if source.is_clip else '.png'
            yield f'labels/{source.name}{ending}'


class OverlayError(Exception):
    """The overlay of a source cannot be written."""


class Run:
    """One pass of a predictor over sources.

    Args:
        predictor: Predictor to run.
        outputs: Folder that takes the predictions.
        overlay: Write frames with the predictions drawn.
        window: Window that shows them.
        longest: Maximum number of frames of a clip.
        outcome: Summary to fill in.
        console: Console for progress and messages.
    """

    def __init__(self, predictor: Predictor, outputs: Outputs, overlay: bool,
                 window: Window | None, longest: int | None,
                 outcome: Outcome, console: Console):
        self.predictor, self.outputs = predictor, outputs
        self.overlay, self.window = overlay, window
        self.longest, self.outcome = longest, outcome
        self.console = console
        self.records: list[dict] = []

    def print(self, text: str):
        self.console.print(text, soft_wrap=True, markup=False,
                           highlight=False)  # yapf: disable

    def failed(self, text: str):
        self.outcome.failed.append(text)
        self.print(f'skipped: {text}')

    def warned(self, text: str):
        self.outcome.failed.append(text)
        self.print(f'warning: {text}')

    def __call__(self, sources: list[Source]):
        """Predict until the end of the sources, or until the user stops it.

        Results so far are written in any case, also after an error.
        """
        began = time.perf_counter()
        try:
            self.predict(sources)
        finally:
            self.outcome.seconds = time.perf_counter() - began
            if self.records:
                for name, content in self.predictor.documents(
                        self.records).items():
                    self.outputs.write_json(name, content)

    def predict(self, sources: list[Source]):
        lengths = [frame_count(source, self.longest) for source in sources]
        known = [length for length in lengths if length is not None]
        total = sum(known) if len(known) == len(lengths) else None
        self.predictor.expect(sources, self.warned)
        frames = read_frames(sources, self.predictor.read, self.failed,
                             self.longest)
        found = self.predictor.run(frames, self.failed)
        with make_progress(self.console) as progress:
            bar = progress.add_task('predicting', total=total)
            groups = groupby(found, key=lambda pair: pair[0].source)
            while not self.outcome.stopped:
                try:
                    source, group = next(groups)
                    self.write(source, group, lambda: progress.advance(bar))
                except StopIteration:
                    break
                except KeyboardInterrupt:
                    self.outcome.stopped = True

    def write(self, source: Source, group: Iterator, advance: Callable):
        """Write and show the frames of one source.

        If the user stops it, the video has the frames so far. If the video
        cannot be written, the results are written without it.
        """
        overlay = self.outputs.overlay(source) if self.overlay else \
            nullcontext()
        try:
            with overlay as write:
                self.write_frames(group, write, advance)
        except OverlayError as error:
            self.failed(f'overlay of {source.path}: {error}')
            self.write_frames(group, None, advance)

    def write_frames(self, group: Iterator, write: Write | None,
                     advance: Callable):
        try:
            for frame, found in group:
                self.write_frame(frame, found, write)
                advance()
        except KeyboardInterrupt:
            self.outcome.stopped = True

    def write_frame(self, frame: Frame, found: Any, write: Write | None):
        """Write and show one frame, and keep its record.

        A frame whose results cannot be written is skipped.

        Raises:
            KeyboardInterrupt: If the user closes the window with a key.
            OverlayError: If the overlay cannot be written.
        """
        try:
            for name, image in self.predictor.pictures(frame, found).items():
                self.outputs.write_image(f'{name}.png', image)
            record = self.predictor.record(frame, found)
        except Exception as error:
            return self.failed(f'{frame.label}: {one_line(error)}')
        drawn = self.draw(frame, found) if write or self.window else None
        self.records.append(record)
        self.outcome.frames += 1
        if drawn is None:
            return
        if write:
            try:
                write(drawn, frame.fps)
            except Exception as error:
                raise OverlayError(one_line(error)) from error
        if self.window and not self.window.show(drawn,
                                                not frame.source.is_clip):
            raise KeyboardInterrupt

    def draw(self, frame: Frame, found: Any) -> ndarray | None:
        try:
            return self.predictor.draw(frame, found)
        except Exception as error:
            self.failed(f'overlay of {frame.label}: {one_line(error)}')
            return None


def predict(config: str | PathLike | Config,
            weights: None | str | PathLike,
            inputs: str | PathLike | Iterable[str | PathLike],
            out_dir: str | Path = 'predictions',
            overlay: bool = True,
            show: bool = False,
            longest: int | None = None,
            force: bool = False,
            **options: Any) -> Outcome:
    """Predict on images, folders, patterns, videos and cameras.

    Writes ``predictions.json`` and, depending on the task, ``images.json``,
    ``labels/`` and ``overlays/`` to a folder. Unreadable inputs are reported
    and skipped.

    Args:
        config: Path of a config, or the config.
        weights: Path of the checkpoint; default: the released weights.
        inputs: Paths, patterns, ``webcam`` or ``webcam:1``; one or several.
        out_dir: Output folder.
        overlay: Write images and videos with the predictions drawn.
        show: Also show them in a window; press q to stop.
        longest: Maximum number of frames of a video or camera.
        force: Replace existing files.
        **options: Options of :func:`load_predictor`.

    Raises:
        FileNotFoundError: If there are no inputs.
        FileExistsError: If a file would be overwritten.
        ValueError: If config, checkpoint and options do not match.
    """
    cfg = config_of(config)
    task, console = predictor_of(cfg), Console(stderr=True)
    outputs = Outputs(Path(out_dir), force)
    outcome = Outcome(outputs.folder)
    missing: list[str] = []
    if isinstance(inputs, (str, PathLike)):
        inputs = [inputs]
    sources = find_sources([fspath(path) for path in inputs],
                           missing.append, outputs.folder)
    if not sources:
        raise FileNotFoundError('; '.join(missing) or 'there are no inputs')
    outputs.check(planned(sources, task, overlay), sources)
    window = Window() if show else None
    predictor = task(cfg, weights or find_weights(cfg), **options)
    run = Run(predictor, outputs, overlay, window, longest, outcome, console)
    for text in missing:
        run.failed(text)
    for text in (*(f'warning: {text}' for text in predictor.problems),
                 *predictor.notes):
        run.print(text)
    run(sources)
    for text in predictor.report():
        run.print(text)
    for text in predictor.complaints():
        run.failed(text)
    return outcome
