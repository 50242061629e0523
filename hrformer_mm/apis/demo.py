# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Compute what the page of ``hrformer-mm demo`` shows; without Gradio."""
import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from html import escape
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from threading import Lock
from typing import Any

import cv2
import numpy as np
from numpy import ndarray

from ..utils.cli import one_line
from .inputs import Frame, Source, clip_frames, kind_of, open_clip
from .outputs import Outputs, open_video
from .predictor import Predictor

MAX_FPS = 30  # of a clip, on average; slow motion has more
MAX_PIXELS = 50_000_000
SIDES = dict(image=2048, clip=1280)  # longest sides of pictures shown
HISTORY = 20  # runs whose files can be downloaded
# Label of the slider and its default, by the extra of the task.
SLIDERS = dict(
    pose=('Hide keypoints with a score below', .3),
    seg=('Hide classes that cover a smaller share than', 0.),
    cls=('Hide classes with a probability below', .01))
BLUE = '#3b82f6'
Bar = tuple[str, float, str]  # name, value in [0, 1], CSS colour
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Limits:
    """Limits of an upload.

    Attributes:
        seconds: Seconds of a video that are used.
        megabytes: Size of a file.
    """
    seconds: float = 10.
    megabytes: int = 100

    @property
    def frames(self) -> int:
        return max(int(self.seconds * MAX_FPS), 1)


@dataclass(frozen=True)
class Shown:
    """Content of the page after a run.

    Attributes:
        text: Message for the user.
        image: Image with the predictions, RGB.
        video: Path of the video with the predictions.
        details: HTML with a bar for each class or person.
        files: Paths of the files to download.
        kept: Frame and result of an image, to draw it again.
    """
    text: str = ''
    image: ndarray | None = None
    video: str | None = None
    details: str = ''
    files: list[str] = field(default_factory=list)
    kept: tuple[Frame, Any] | None = None


def shrink(image: ndarray, longest: int) -> ndarray:
    """Resize an image whose longest side is too long, to even sides."""
    scale = min(longest / max(image.shape[:2]), 1)
    height, width = (max(round(n * scale) // 2 * 2, 2)
                     for n in image.shape[:2])
    if scale == 1 and image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def draw_bars(bars: list[Bar]) -> str:
    """Return HTML with a labelled bar for each value."""
    return ''.join(
        f'<div class="bar"><span>{escape(name)}</span>'
        f'<b>{100 * value:.1f} %</b><div><i style="width:'
        f'{100 * min(value, 1):.1f}%;background:{color}"></i></div></div>'
        for name, value, color in bars)


def check_size(path: Path):
    """Check the number of pixels of an image, before it is decoded.

    Raises:
        ValueError: If there are too many.
    """
    from PIL import Image
    try:
        with Image.open(path) as image:
            pixels = image.width * image.height
    except Image.DecompressionBombError:
        pixels = MAX_PIXELS + 1
    except (OSError, ValueError, SyntaxError):
        return  # reading it reports the reason
    if pixels > MAX_PIXELS:
        raise ValueError(
            f'{path.name} has more than {MAX_PIXELS // 10**6} million pixels')


class Demo:
    """Predictions of a model, as a page shows them.

    Args:
        predictor: Predictor of any task.
        task: ``pose``, ``seg`` or ``cls``.
        name: Name of the model.
        limits: Limits of uploads.
    """

    def __init__(self, predictor: Predictor, task: str, name: str,
                 limits: Limits = Limits()):
        self.predictor, self.task = predictor, task
        self.name, self.limits = name, limits
        self.lock = Lock()  # a predictor serves one caller at a time
        self.folder = TemporaryDirectory(prefix='hrformer-mm-demo-')
        self.folders: deque[str] = deque()

    def new_folder(self) -> Path:
        """Create a folder for the files of a run; remove old ones."""
        self.folders.append(mkdtemp(dir=self.folder.name))
        while len(self.folders) > HISTORY:
            shutil.rmtree(self.folders.popleft(), ignore_errors=True)
        return Path(self.folders[-1])

    def run(self, path: str, threshold: float,
            progress: Progress = lambda share: None) -> Shown:
        """Predict on a file; errors become the text of the page.

        Args:
            path: Path of an image or a video.
            threshold: Value of the slider.
            progress: Called with the completed share.
        """
        try:
            with self.lock:
                source = Source(path, Path(path).stem, kind_of(Path(path)))
                if source.is_clip:
                    return self.run_clip(source, threshold, progress)
                return self.run_image(source, threshold)
        except Exception as error:  # decoders and models raise all kinds
            reason = one_line(error).replace(path, Path(path).name)
            if Path(path).name not in reason:
                reason = f'{Path(path).name}: {reason}'
            return Shown(f'This file cannot be used: {reason}')

    def run_image(self, source: Source, threshold: float) -> Shown:
        check_size(Path(source.path))
        image = self.predictor.read(source.path)
        frame = Frame(replace(source, path=Path(source.path).name), image)
        self.predictor.expect([frame.source], self.predictor.warn)
        (frame, found), = self.predictor.run([frame])
        outputs = Outputs(self.new_folder())
        pictures = self.predictor.pictures(frame, found)
        for name, picture in pictures.items():
            outputs.write_image(f'{name}.png', picture)
        record = self.predictor.record(frame, found)
        files = [str(outputs.folder / f'{name}.png') for name in pictures]
        return replace(
            self.show(frame, found, threshold),
            files=self.write([record], outputs) + files)

    def redraw(self, kept: tuple[Frame, Any], threshold: float) -> Shown:
        """Show an image again, with another threshold."""
        with self.lock:
            return self.show(*kept, threshold)

    def show(self, frame: Frame, found: Any, threshold: float) -> Shown:
        height, width = frame.image.shape[:2]
        drawn = shrink(self.draw(frame, found, threshold), SIDES['image'])
        bars = self.bars(self.predictor.record(frame, found))
        return Shown(
            f'{frame.source.path}: {width} x {height} pixels',
            image=np.ascontiguousarray(drawn[..., ::-1]),
            details=self.describe(bars, threshold),
            kept=(frame, found))

    def run_clip(self, source: Source, threshold: float,
                 progress: Progress) -> Shown:
        """Predict on the start of a clip, one frame at a time."""
        with open_clip(source) as clip:
            fps, total = clip.fps, clip.count
        longest = min(ceil(self.limits.seconds * fps), self.limits.frames)
        expected = min(total or longest, longest)
        outputs = Outputs(self.new_folder())
        # The name differs between uploads, so that ids of people start anew.
        short = replace(source, path=Path(source.path).name,
                        name=outputs.folder.name)
        video = outputs.folder / f'{source.name}.webm'
        frames = (replace(frame, source=short)
                  for frame in clip_frames(source, longest))
        records, bars = [], []
        self.predictor.expect([short], self.predictor.warn)
        with open_video(video) as write:
            for frame, found in self.predictor.run(frames):
                drawn = self.draw(frame, found, threshold)
                write(shrink(drawn, SIDES['clip']), fps)
                record = self.predictor.record(frame, found)
                record.pop('labels', None)  # its image is not written
                bars.append(self.bars(record))
                records.append(record)
                progress(len(records) / expected)
        text = f'{short.path}: {len(records)} frames'
        if total is None or total > len(records):
            text += (f'. Only the first {len(records) / fps:.1f} s were '
                     f'used; the limit is {self.limits.seconds:g} s')
        return Shown(
            text,
            video=str(video),
            details=self.describe(
                mean_of(bars, self.task == 'pose'), threshold),
            files=self.write(records, outputs))

    def write(self, records: list[dict], outputs: Outputs) -> list[str]:
        """Write the JSON files; return their paths."""
        documents = self.predictor.documents(records)
        for name, content in documents.items():
            outputs.write_json(name, content)
        return [str(outputs.folder / name) for name in documents]

    def draw(self, frame: Frame, found: Any, threshold: float) -> ndarray:
        """Draw a result without what the threshold hides, BGR."""
        if self.task == 'pose':
            setattr(self.predictor, 'keypoint_threshold', threshold)
        drawn = self.predictor.draw(frame, found)
        if self.task == 'seg' and threshold:
            labels, counts = np.unique(found, return_counts=True)
            rare = labels[counts < threshold * found.size]
            hidden = np.isin(found, rare)
            drawn[hidden] = frame.image[hidden]
        return drawn

    def bars(self, record: dict) -> list[Bar]:
        """Return the bars of one image, the longest first."""
        if self.task == 'pose':
            return [(f"Person {person.get('track_id', i)}", person['score'],
                     BLUE) for i, person in enumerate(record['people'], 1)]
        if self.task == 'cls':
            return [(c['name'], c['score'], BLUE) for c in record['classes']]
        colors: dict[str, str] = {
            name: 'rgb({},{},{})'.format(*map(int, color))
            for name, color in zip(getattr(self.predictor, 'names'),
                                   getattr(self.predictor, 'palette'))}
        bars = [(name, share, colors[name])
                for name, share in record['shares'].items()]
        return sorted(bars, key=lambda bar: -bar[1])

    def describe(self, bars: list[Bar], threshold: float) -> str:
        """Return the HTML beside the picture."""
        if self.task != 'pose':
            bars = [bar for bar in bars if bar[1] >= threshold]
        title = dict(pose='Score of each person', seg='Share of the image',
                     cls='Probability of each class')[self.task]
        nothing = 'No people were found.' if self.task == 'pose' else \
            'No class reaches the threshold.'
        return f'<h3>{title}</h3>' + (draw_bars(bars) or f'<p>{nothing}</p>')


def mean_of(frames: list[list[Bar]], where_present: bool) -> list[Bar]:
    """Return the mean of the bars of several frames, the longest first.

    Args:
        frames: The bars of each frame.
        where_present: Ignore frames without a bar, which count as 0 otherwise.
    """
    values: dict[tuple[str, str], list[float]] = {}
    for bars in frames:
        for name, value, color in bars:
            values.setdefault((name, color), []).append(value)
    means = [(name, sum(v) / (len(v) if where_present else len(frames)), color)
             for (name, color), v in values.items()]
    return sorted(means, key=lambda bar: -bar[1])
