# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Decode images of all formats into BGR arrays, [H, W, 3] of uint8.

Files are decoded by Pillow, which turns images of every format by their EXIF
orientation, knows all colour spaces and fails on truncated files.
"""
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

from ..utils.cli import one_line

# Formats whose further frames are an animation; those of MPO and TIFF are
# views and pages.
ANIMATED = ('GIF', 'WEBP', 'PNG', 'AVIF', 'HEIF')
# Brands of ISO base media files, the package that decodes them, and its line.
BRANDS = {
    'avif': ('AVIF', "pip install 'pillow>=11.3'"),
    **dict.fromkeys(('heic', 'heix', 'hevc', 'heim', 'heis', 'mif1', 'msf1'),
                    ('HEIF', 'pip install pillow-heif')),
}  # yapf: disable
SECOND = 1000.  # milliseconds


def check_range(image: ndarray):
    """Raise ValueError if values are not the integers from 0 to 255."""
    kind = image.dtype
    if kind.kind not in 'uif':
        raise ValueError(f'arrays of images are uint8, got {kind}')
    if kind.kind == 'f' and not np.isfinite(image).all():
        raise ValueError('an array of an image has NaN or infinite values')
    low, high = image.min(), image.max()
    if kind.kind == 'f' and 0 <= low and 0 < high <= 1:
        raise ValueError(
            f'arrays of images have values from 0 to 255, got {kind} from '
            f'{low:g} to {high:g}: use (255 * image).astype(np.uint8)')
    if kind == np.uint16 and high > 255:
        raise ValueError(
            f'arrays of images have values from 0 to 255, got uint16 up to '
            f'{high}: use (image // 257).astype(np.uint8)')
    if low < 0 or high > 255:
        raise ValueError(f'arrays of images have values from 0 to 255, got '
                         f'{kind} from {low:g} to {high:g}; is it normalized?')


def as_bgr(image: ndarray) -> ndarray:
    """Check an array and return it as a BGR image, [H, W, 3] of uint8.

    Grey images [H, W] or [H, W, 1] become three equal channels, and an alpha
    channel is dropped, as when OpenCV reads a file.

    Raises:
        ValueError: For another shape, type or range; with the fix.
    """
    shape = image.shape
    if image.ndim not in (2, 3) or image.ndim == 3 and shape[2] not in (1, 3,
                                                                        4):
        fix = '; use image.transpose(1, 2, 0)' if (
            image.ndim == 3 and shape[0] in (1, 3, 4)) else ''
        raise ValueError('arrays of images are [H, W], [H, W, 3] or '
                         f'[H, W, 4], got shape {list(shape)}{fix}')
    if image.size == 0:
        raise ValueError(f'an array of an image is empty, shape {list(shape)}')
    if image.dtype != np.uint8:
        check_range(image)
        image = image.round().astype(np.uint8)
    if image.ndim == 2 or shape[2] == 1:
        return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(image[..., :3])


def from_pil(image: Image.Image) -> ndarray:
    """Convert an image of PIL, of any mode, to a BGR array.

    An alpha channel is dropped. Grey images of 16 bits are scaled to 8, unless
    their values do not exceed 255.

    Raises:
        ValueError: For values of 32 bits that are not from 0 to 255.
    """
    if image.mode.startswith('I;16'):
        deep = np.asarray(image).astype(np.uint16)
        return as_bgr(deep // 257 if deep.max() > 255 else deep)
    if image.mode in ('I', 'F'):  # which convert() would clip
        return as_bgr(np.asarray(image))
    return as_bgr(np.asarray(image.convert('RGB'))[..., ::-1])


def brand_of(path: Path) -> str:
    """Return the brand of an ISO base media file, such as ``avif``, or ''."""
    with open(path, 'rb') as file:
        head = file.read(12)
    return head[8:].decode('latin-1') if head[4:8] == b'ftyp' else ''


def register_heif() -> bool:
    """Register pillow-heif in Pillow, if it is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


@contextmanager
def open_image(path: str | Path) -> Iterator[Image.Image]:
    """Open an image file of any format with Pillow.

    Raises:
        OSError: If it cannot be read, is not an image, or is in a format that
            needs a package; names the package.
    """
    path = Path(path)
    brand = brand_of(path)
    kind, install = BRANDS.get(brand, ('', ''))
    if kind == 'HEIF':
        register_heif()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of harmless oddities in files
        try:
            image = Image.open(path)
        except UnidentifiedImageError:
            if kind:
                raise OSError(f'{path} is in {kind} format, which Pillow '
                              f'cannot read: {install}') from None
            raise
        with image:
            yield image


def decode(image: Image.Image) -> ndarray:
    """Decode an open image, or its current frame, as a viewer shows it."""
    image.load()  # a second attempt would return what could be decoded
    turned = image
    with suppress(Exception):  # a damaged EXIF block does not matter
        turned = ImageOps.exif_transpose(image)
    return from_pil(turned)


def read_image(path: str | Path) -> ndarray:
    """Read an image file as a viewer shows it.

    Raises:
        OSError: If it cannot be read, is not an image or is truncated.
    """
    with open_image(path) as image:
        try:
            return decode(image)
        except Exception as error:  # decoders raise all kinds
            raise OSError(f'{path} cannot be decoded: '
                          f'{one_line(error)}') from None


def is_animation(path: str | Path) -> bool:
    """Whether an image file has several frames; False if it is unreadable."""
    try:
        with open_image(path) as image:
            return (image.format in ANIMATED
                    and getattr(image, 'n_frames', 1) > 1)
    except Exception:  # decoders raise all kinds; reading reports the reason
        return False


def decode_frames(image: Image.Image) -> Iterator[ndarray]:
    """Decode all frames of an open animation."""
    for frame in ImageSequence.Iterator(image):
        yield decode(frame)


def timing(image: Image.Image, default: float) -> tuple[float, int]:
    """Return frames per second and number of frames of an animation."""
    with suppress(Exception):  # reading the frames reports the reason
        image.load()  # before, WebP and AVIF do not know it
    pause = image.info.get('duration')
    return SECOND / pause if pause else default, getattr(image, 'n_frames', 1)
