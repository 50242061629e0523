# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Inputs of predictions: images, folders, globs, videos and cameras."""
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

import cv2
from numpy import ndarray

from ..utils.cli import one_line
from .decode import decode_frames, is_animation, open_image, timing

IMAGES = {'.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.apng', '.bmp', '.dib',
          '.tif', '.tiff', '.webp', '.gif', '.ppm', '.pgm', '.pnm', '.jp2',
          '.j2k', '.mpo', '.avif', '.heif', '.heic'}  # yapf: disable
VIDEOS = {'.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg',
          '.wmv', '.flv'}  # yapf: disable
# May hold several frames.
ANIMATIONS = {'.gif', '.webp', '.png', '.apng', '.avif', '.heif', '.heic'}
CAMERA = re.compile(r'webcam(?::(\d+))?$')
FPS = 25.  # if a camera or a file does not report it
Log = Callable[[str], None]  # called with a message


@dataclass(frozen=True)
class Source:
    """A file, or a camera.

    Attributes:
        path: Path of the file, or ``webcam:0``.
        name: Base name of its outputs, without extension; may have folders.
        kind: ``image``, ``video``, ``animation`` or ``camera``.
    """
    path: str
    name: str
    kind: str

    @property
    def is_clip(self) -> bool:
        return self.kind != 'image'


@dataclass(frozen=True)
class Frame:
    """An image and its source.

    Attributes:
        index: Index of the frame in a clip.
        fps: Frames per second of the clip.
    """
    source: Source
    image: ndarray  # [H, W, 3], BGR
    index: int = 0
    fps: float = FPS

    @property
    def label(self) -> str:
        """Return a name like ``photo.jpg`` or ``clip.mp4#12``."""
        return f'{self.source.path}#{self.index}' if self.source.is_clip \
            else self.source.path


class Clip(NamedTuple):
    """An open video; without a count, its length is unknown."""
    images: Iterator[ndarray]
    fps: float
    count: int | None  # type: ignore[assignment]


def kind_of(path: Path) -> str:
    """Return the kind of a file, by its extension and number of frames."""
    suffix = path.suffix.lower()
    if suffix in VIDEOS:
        return 'video'
    return 'animation' if suffix in ANIMATIONS and is_animation(
        path) else 'image'


def in_folder(folder: Path, without: Path) -> list[Path]:
    """List images and videos at any depth, sorted, outside of ``without``."""
    without = without.resolve()
    return sorted(
        path for path in folder.rglob('*')
        if path.suffix.lower() in IMAGES | VIDEOS and path.is_file()
        and without not in path.resolve().parents)


def expand(text: str, without: Path) -> list[tuple[Path, str]]:
    """Return the files that match an input, each with its name.

    Raises:
        FileNotFoundError: If there is none.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        found = [(file, file.relative_to(path).with_suffix('').as_posix())
                 for file in in_folder(path, without)]
        missing = 'has no images or videos'
    elif path.exists():
        found = [(path, path.stem)]
    else:
        found = [(Path(file), Path(file).stem)
                 for file in sorted(glob(str(path), recursive=True))
                 if Path(file).is_file()]
        missing = 'does not exist'
    if not found:
        raise FileNotFoundError(f'{text} {missing}')
    return found


def unique(name: str, taken: set[str]) -> str:
    """Return the name, numbered if it is taken, and mark it as taken."""
    names = chain([name], (f'{name}_{i}' for i in count(2)))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name


def find_sources(inputs: Iterable[str], failed: Log,
                 without: Path) -> list[Source]:
    """List the files and cameras that match the inputs, without duplicates.

    Args:
        inputs: Paths, patterns, or ``webcam`` with ``:1`` for the second.
        failed: Called with a message for each missing input; the others are
            still used.
        without: Folder to skip, because it takes the output.
    """
    found: dict[str, Source] = {}
    taken: set[str] = set()
    for text in inputs:
        camera = CAMERA.match(text)
        if camera:
            path = f'webcam:{camera[1] or 0}'
            if path not in found:
                found[path] = Source(path, unique('webcam', taken), 'camera')
            continue
        try:
            files = expand(text, without)
        except OSError as error:
            failed(str(error))
            continue
        for file, name in files:
            key = str(file.resolve())
            if key not in found:
                found[key] = Source(str(file), unique(name, taken),
                                    kind_of(file))
    return list(found.values())


@contextmanager
def open_capture(source: Source) -> Iterator[cv2.VideoCapture]:
    """Open a video or camera with OpenCV, and release it at the end.

    Raises:
        OSError: If it cannot be opened.
    """
    camera = CAMERA.match(source.path)
    capture = cv2.VideoCapture(int(camera[1]) if camera else source.path)
    try:
        if not capture.isOpened():
            raise OSError(f'{source.path} cannot be opened')
        yield capture
    finally:
        capture.release()


def captured(capture: cv2.VideoCapture) -> Iterator[ndarray]:
    while True:
        is_there, image = capture.read()
        if not is_there:
            return
        yield image


@contextmanager
def open_clip(source: Source) -> Iterator[Clip]:
    """Read a video, an animation or a camera.

    Raises:
        OSError: If it cannot be opened.
    """
    if source.kind == 'animation':
        with open_image(source.path) as animation:
            yield Clip(decode_frames(animation), *timing(animation, FPS))
        return
    with open_capture(source) as capture:
        fps = capture.get(cv2.CAP_PROP_FPS)
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        yield Clip(captured(capture), fps if 1 <= fps <= 1000 else FPS,
                   frames if frames > 0 else None)


def frame_count(source: Source, longest: int | None) -> int | None:
    """Return the number of frames; None if unknown, 0 on errors."""
    if not source.is_clip:
        return 1
    if source.kind == 'camera':
        return longest
    try:
        with open_clip(source) as clip:
            frames = clip.count
    except OSError:
        return 0
    return frames if longest is None else min(frames or longest, longest)


def clip_frames(source: Source, longest: int | None) -> Iterator[Frame]:
    """Yield the frames of a clip, at most ``longest``.

    Raises:
        OSError: If there are none.
    """
    index = -1
    with open_clip(source) as clip:
        for index, image in enumerate(clip.images):
            yield Frame(source, image, index, clip.fps)
            if index + 1 == longest:
                return
    if index < 0:
        raise OSError(f'{source.path} has no frame that can be read')


def read_frames(sources: Iterable[Source], read: Callable[[str], ndarray],
                failed: Log, longest: int | None) -> Iterator[Frame]:
    """Yield the frames of all sources in order; skip unreadable ones.

    Args:
        read: Returns the image of a file.
        failed: Called with a message for each unreadable input.
        longest: Maximum number of frames of a clip.
    """
    for source in sources:
        try:
            if source.is_clip:
                yield from clip_frames(source, longest)
            else:
                yield Frame(source, read(source.path))
        except Exception as error:  # decoders raise all kinds
            reason = one_line(error)
            failed(reason if source.path in reason else
                   f'{source.path}: {reason}')  # yapf: disable
