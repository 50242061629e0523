# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Write images, videos and JSON files, each complete or not at all."""
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from os import environ
from pathlib import Path
from typing import Any

import cv2
from numpy import ndarray

from ..checkpoints.files import replacing
from .inputs import Source

Write = Callable[[ndarray, float], None]  # an image, frames per second
CODECS = {'.webm': 'VP80'}  # which browsers play; others: MPEG-4


def ending_of(source: Source) -> str:
    """Return the file extension for the overlay of a source."""
    if source.is_clip:
        return '.mp4'
    ending = Path(source.path).suffix.lower()
    return ending if ending in ('.jpg', '.jpeg') else '.png'


@contextmanager
def open_video(path: Path) -> Iterator[Write]:
    """Yield a function that adds a frame to a video.

    The video appears under its name when it is complete.

    Raises:
        OSError: If OpenCV cannot write it.
    """
    video: cv2.VideoWriter | None = None

    def write(image: ndarray, fps: float):
        nonlocal video
        if video is None:  # without frames, there is no video
            fresh = stack.enter_context(replacing(path))
            video = cv2.VideoWriter(
                str(fresh),
                cv2.VideoWriter_fourcc(*CODECS.get(path.suffix, 'mp4v')), fps,
                image.shape[1::-1])
            stack.callback(video.release)
        if not video.isOpened():
            raise OSError(f'this OpenCV cannot write {path}')
        video.write(image)

    with ExitStack() as stack:
        yield write


class Outputs:
    """Output folder of predictions.

    Args:
        folder: Path of the folder; created when first needed.
        force: Replace existing files.
    """

    def __init__(self, folder: Path, force: bool = False):
        self.folder, self.force = folder, force

    def check(self, names: Iterable[str], sources: Iterable[Source]):
        """Check for files that would be overwritten, before any work is done.

        Args:
            names: Names of the files and folders to write.
            sources: Inputs, which are never overwritten.

        Raises:
            FileExistsError: If one of the names exists.
        """
        inputs = {Path(source.path).resolve() for source in sources}
        for path in (self.folder / name for name in names):
            if path.resolve() in inputs:
                raise FileExistsError(f'{path} is an input; --out-dir DIR '
                                      'writes elsewhere')
            if path.exists() and not self.force:
                raise FileExistsError(
                    f'{path} is already there; --force replaces it, '
                    '--out-dir DIR writes elsewhere')

    def write_image(self, name: str, image: ndarray):
        """Write an image in the format of its file extension."""
        path = self.folder / name
        is_done, content = cv2.imencode(path.suffix, image)
        if not is_done:
            raise OSError(f'OpenCV cannot write {path}')
        with replacing(path) as fresh:
            fresh.write_bytes(content.tobytes())

    def write_json(self, name: str, content: Any):
        with replacing(self.folder / name) as fresh:
            fresh.write_text(json.dumps(content), encoding='utf-8')

    @contextmanager
    def overlay(self, source: Source) -> Iterator[Write]:
        """Yield a function that writes the overlays of a source."""
        name = f'overlays/{source.name}{ending_of(source)}'
        if source.is_clip:
            with open_video(self.folder / name) as write:
                yield write
        else:
            yield lambda image, fps: self.write_image(name, image)


class Window:
    """A window that shows images until q or Escape is pressed.

    Raises:
        ValueError: If there is no display.
    """

    def __init__(self):
        # Without a display, OpenCV's GUI toolkit aborts the whole process.
        if sys.platform == 'linux' and not (environ.get('DISPLAY') or
                                            environ.get('WAYLAND_DISPLAY')):
            raise ValueError('--show needs a screen, and there is none')

    def show(self, image: ndarray, wait: bool) -> bool:
        """Show an image; return whether to continue.

        Args:
            image: Image to show.
            wait: Wait for a key press.

        Raises:
            ValueError: If OpenCV was built without GUI support.
        """
        try:
            cv2.imshow('hrformer-mm', image)
            key = cv2.waitKey(0 if wait else 1) & 0xff
        except cv2.error:
            raise ValueError('--show needs an OpenCV with windows: pip '
                             'install opencv-python') from None
        return key not in (27, ord('q'))
