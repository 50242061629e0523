# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""What to predict on: images, folders, globs, videos and cameras."""
import re
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from itertools import chain, count
from pathlib import Path
from typing import (Callable, Dict, Iterable, Iterator, List, NamedTuple,
                    Optional, Set, Tuple)

import cv2
import numpy as np
from numpy import ndarray

from ..utils.cli import one_line

IMAGES = {'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.gif',
          '.ppm', '.pgm', '.jp2'}  # yapf: disable
VIDEOS = {'.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg',
          '.wmv', '.flv'}  # yapf: disable
ANIMATIONS = {'.gif', '.webp'}  # may hold several frames
CAMERA = re.compile(r'webcam(?::(\d+))?$')
FPS = 25.  # where a camera or a file does not tell
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """A file, or a camera.

    Attributes:
        path: Of the file, or ``webcam:0``.
        name: Without ending, for what is written about it; may have folders.
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
    """An image, and where it comes from.

    Attributes:
        index: Of the frame in a clip.
        fps: Of the clip.
    """
    source: Source
    image: ndarray  # [H, W, 3], blue first
    index: int = 0
    fps: float = FPS

    @property
    def label(self) -> str:
        """As ``photo.jpg`` or ``clip.mp4#12``."""
        return f'{self.source.path}#{self.index}' if self.source.is_clip \
            else self.source.path


class Clip(NamedTuple):
    """A video that is being read; without a count, it does not end."""
    images: Iterator[ndarray]
    fps: float
    count: Optional[int]  # type: ignore[assignment]


def kind_of(path: Path) -> str:
    """What a file is, by its ending and the number of its frames."""
    suffix = path.suffix.lower()
    if suffix in VIDEOS:
        return 'video'
    if suffix in ANIMATIONS:
        from PIL import Image
        try:
            with Image.open(path) as image:
                return 'animation' if image.n_frames > 1 else 'image'
        except (OSError, AttributeError):  # reading it will tell what is wrong
            pass
    return 'image'


def in_folder(folder: Path, without: Path) -> List[Path]:
    """Images and videos at any depth, in order, but not below ``without``."""
    without = without.resolve()
    return sorted(
        path for path in folder.rglob('*')
        if path.suffix.lower() in IMAGES | VIDEOS and path.is_file()
        and without not in path.resolve().parents)


def expand(text: str, without: Path) -> List[Tuple[Path, str]]:
    """Files that an input stands for, each with its name.

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
        missing = 'is not there'
    if not found:
        raise FileNotFoundError(f'{text} {missing}')
    return found


def unique(name: str, taken: Set[str]) -> str:
    """The name, or with a number behind it if it is taken; now it is."""
    names = chain([name], (f'{name}_{i}' for i in count(2)))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name


def find_sources(inputs: Iterable[str], failed: Tell,
                 without: Path) -> List[Source]:
    """All files and cameras that inputs stand for, each of them once.

    Args:
        inputs: Paths, patterns, or ``webcam`` with ``:1`` for the second.
        failed: Told of an input that is not there; the others continue.
        without: A folder whose files are left out, for it takes the output.
    """
    found: Dict[str, Source] = {}
    taken: Set[str] = set()
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
    """OpenCV's reader of a video or camera, which is let go at the end.

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


def animated(video) -> Iterator[ndarray]:
    from PIL import ImageSequence
    for image in ImageSequence.Iterator(video):
        yield np.asarray(image.convert('RGB'))[..., ::-1].copy()


@contextmanager
def open_clip(source: Source) -> Iterator[Clip]:
    """Read a video, an animation or a camera.

    Raises:
        OSError: If it cannot be opened.
    """
    if source.kind == 'animation':
        from PIL import Image
        with Image.open(source.path) as video:
            pause = video.info.get('duration') or 1000 / FPS
            yield Clip(animated(video), 1000 / pause, video.n_frames)
        return
    with open_capture(source) as capture:
        fps = capture.get(cv2.CAP_PROP_FPS)
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        yield Clip(captured(capture), fps if 1 <= fps <= 1000 else FPS,
                   frames if frames > 0 else None)


def length_of(source: Source, longest: Optional[int]) -> Optional[int]:
    """Frames of a source, as far as it tells; one that is broken has none."""
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


def clip_frames(source: Source, longest: Optional[int]) -> Iterator[Frame]:
    """Frames of a clip, at most ``longest`` of them.

    Raises:
        OSError: If there is none.
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
                failed: Tell, longest: Optional[int]) -> Iterator[Frame]:
    """Frames of all sources in order; what cannot be read is told and left.

    Args:
        read: Gives the image of a file.
        failed: Told of what is broken; the others continue.
        longest: Of a clip, in frames.
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
