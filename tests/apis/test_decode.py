# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Image files of all formats are read as Pillow shows them."""
import struct
import zlib

import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from PIL import Image, ImageOps, UnidentifiedImageError, features

from hrformer_mm.apis import decode, inputs
from hrformer_mm.apis.predictor import Predictor

COLORS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), 'u1')
COLORS = np.asarray(Image.fromarray(COLORS).resize((16, 12)))
PICTURE = Image.fromarray(COLORS)
ORIENTATION = 0x0112
HAS_AVIF = features.check('avif')


class Reader(Predictor):
    """A predictor that only reads."""

    def __init__(self, **options):
        self.load = LoadImageFromFile(**options)


def read_all(*paths, **options):
    """Return the frames of files, and the messages about those skipped."""
    said = []
    sources = inputs.find_sources(map(str, paths), said.append, paths[0] / 'o')
    frames = list(inputs.read_frames(sources, Reader(**options).read,
                                     said.append, None))
    return frames, said


def shown(path, frame=0):
    """Return a frame as Pillow shows it, [H, W, 3], RGB."""
    with Image.open(path) as image:
        image.seek(frame)
        return np.asarray(ImageOps.exif_transpose(image).convert('RGB'))


def exif(orientation):
    block = Image.Exif()
    block[ORIENTATION] = orientation
    return block


@pytest.mark.parametrize('suffix', [
    '.jpg', '.png', '.webp', '.tif',
    pytest.param('.avif', marks=pytest.mark.skipif(
        not HAS_AVIF, reason='this Pillow has no AVIF'))])
def test_every_exif_orientation_is_applied_in_every_format(suffix, tmp_path):
    for orientation in range(1, 9):
        path = tmp_path / f'{orientation}{suffix}'
        PICTURE.save(path, exif=exif(orientation))
    frames, said = read_all(tmp_path)
    assert not said and len(frames) == 8
    for frame in frames:
        wanted = shown(frame.source.path)
        np.testing.assert_array_equal(frame.image[..., ::-1], wanted)
    assert {f.image.shape[:2] for f in frames} == {(12, 16), (16, 12)}


def palette():
    image = PICTURE.quantize(7)
    image.info['transparency'] = bytes([0, 128] + [255] * 5)
    return image


STILL = {
    'cmyk.jpg': lambda: PICTURE.convert('CMYK'),
    'grey.jpg': lambda: PICTURE.convert('L'),
    'cmyk.tif': lambda: PICTURE.convert('CMYK'),
    'lab.tif': lambda: Image.merge('LAB', PICTURE.split()),
    'bits.png': lambda: PICTURE.convert('1'),
    'palette.png': palette,
    'palette.gif': lambda: PICTURE.quantize(7),
    'la.png': lambda: PICTURE.convert('L').convert('LA'),
    'rgba.png': lambda: PICTURE.convert('RGBA'),
    'rgba.webp': lambda: PICTURE.convert('RGBA'),
    'rgba.bmp': lambda: PICTURE.convert('RGBA'),
    'dark.png': lambda: Image.fromarray(COLORS[..., 0].astype('u2')),
    'photo.jfif': lambda: PICTURE,
    'photo.ppm': lambda: PICTURE,
}


@pytest.mark.parametrize('name', STILL)
def test_every_mode_is_converted_as_pillow_does(name, tmp_path):
    kind = {'.jfif': 'JPEG'}.get((tmp_path / name).suffix)
    STILL[name]().save(tmp_path / name, kind)
    (frame, ), said = read_all(tmp_path)
    assert not said and not frame.source.is_clip
    if name == 'dark.png':  # values that do not exceed 255 are not scaled
        wanted = COLORS[..., :1].repeat(3, -1)
    else:
        wanted = shown(tmp_path / name)
    np.testing.assert_array_equal(frame.image[..., ::-1], wanted)


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_grey_images_of_16_bits_are_scaled_to_8(suffix, tmp_path):
    path = tmp_path / f'deep{suffix}'
    deep = COLORS[..., 0].astype('u2') * 257
    Image.fromarray(deep).save(path)
    (frame, ), _ = read_all(path)
    assert (frame.image == COLORS[..., :1]).all()


def test_an_extension_may_be_that_of_another_format(tmp_path):
    PICTURE.save(tmp_path / 'a.jpg', 'PNG')
    (frame, ), said = read_all(tmp_path)
    assert not said and (frame.image[..., ::-1] == COLORS).all()


def frames_of():
    """Return new images, as saving one leaves options of its format."""
    return [Image.fromarray(np.roll(COLORS, i, 1)) for i in range(3)]


MOVING = {'a.gif': {}, 'a.png': {}, 'a.webp': dict(lossless=True)}
if HAS_AVIF:
    MOVING['a.avif'] = {}


@pytest.mark.parametrize('name', MOVING)
def test_animations_of_every_format_have_their_frames(name, tmp_path):
    path = tmp_path / name
    first, *rest = frames_of()
    first.save(path, save_all=True, append_images=rest, duration=50,
               **MOVING[name])
    frames, said = read_all(tmp_path)
    assert not said and [f.index for f in frames] == [0, 1, 2]
    for frame in frames:
        assert frame.source.is_clip and frame.fps == pytest.approx(20)
        np.testing.assert_array_equal(frame.image[..., ::-1],
                                      shown(path, frame.index))


@pytest.mark.parametrize('name, kind', [('a.mpo', 'MPO'), ('a.tif', 'TIFF')])
def test_of_views_and_pages_the_first_is_read(name, kind, tmp_path):
    path = tmp_path / name
    first, *rest = frames_of()
    first.save(path, kind, save_all=True, append_images=rest)
    (frame, ), said = read_all(tmp_path)
    assert not said and not frame.source.is_clip
    np.testing.assert_array_equal(frame.image[..., ::-1], shown(path))


@pytest.mark.parametrize('name', ['a.jpg', 'a.png', 'a.webp', 'a.gif'])
def test_truncated_and_damaged_files_are_skipped_with_one_line(name,
                                                               tmp_path):
    large = Image.fromarray(COLORS).resize((160, 120))
    large.save(tmp_path / 'whole', name[2:].replace('jpg', 'jpeg'))
    content = (tmp_path / 'whole').read_bytes()
    for i, bad in enumerate([content[:len(content) // 2], content[:20],
                             b'text' * 9, b'']):
        (tmp_path / f'{i}{name}').write_bytes(bad)
    frames, said = read_all(*sorted(tmp_path.glob(f'?{name}')))
    assert not frames and len(said) == 4
    for i, line in enumerate(said):
        assert f'{i}{name}' in line and '\n' not in line


def test_a_png_with_damaged_lines_is_skipped_with_one_line(tmp_path):
    """Half of its lines have a filter that does not exist."""
    lines = b''.join(bytes([9 * (i > 6)]) + COLORS[i].tobytes()
                     for i in range(12))
    head = struct.pack('>IIBBBBB', 16, 12, 8, 2, 0, 0, 0)
    content = b'\x89PNG\r\n\x1a\n'
    for name, data in ((b'IHDR', head), (b'IDAT', zlib.compress(lines)),
                       (b'IEND', b'')):
        content += struct.pack('>I', len(data)) + name + data + struct.pack(
            '>I', zlib.crc32(name + data))
    (tmp_path / 'a.png').write_bytes(content)
    frames, said = read_all(tmp_path)
    assert not frames and len(said) == 1 and 'cannot be decoded' in said[0]


@pytest.mark.parametrize('brand, words', [
    ('heic', 'HEIF format.*pip install pillow-heif'),
    ('mif1', 'HEIF format.*pip install pillow-heif'),
    ('avif', 'AVIF format.*pillow>=11.3')])
def test_formats_that_pillow_lacks_name_the_package_to_install(
        brand, words, tmp_path, monkeypatch):

    def unknown(path):
        raise UnidentifiedImageError(path)

    monkeypatch.setattr(decode.Image, 'open', unknown)
    path = tmp_path / 'a.heic'
    path.write_bytes(b'\0\0\0\x1cftyp' + brand.encode() + b'\0' * 99)
    frames, said = read_all(tmp_path)
    assert not frames and len(said) == 1
    with pytest.raises(OSError, match=words):
        raise OSError(said[0])


def test_a_damaged_exif_block_does_not_matter(tmp_path, monkeypatch):

    def damaged(image):
        raise SyntaxError('not a TIFF file')

    PICTURE.save(tmp_path / 'a.png')
    monkeypatch.setattr(decode.ImageOps, 'exif_transpose', damaged)
    (frame, ), said = read_all(tmp_path)
    assert not said and (frame.image[..., ::-1] == COLORS).all()


def test_a_file_too_large_for_pillow_is_read_by_the_config(tmp_path,
                                                           monkeypatch):
    PICTURE.save(tmp_path / 'a.png')
    monkeypatch.setattr(decode.Image, 'MAX_IMAGE_PIXELS', 9)
    (frame, ), said = read_all(tmp_path)
    assert not said and (frame.image[..., ::-1] == COLORS).all()


def test_a_config_that_reads_other_values_reads_them_itself(tmp_path):
    deep = COLORS[..., 0].astype('u2') * 257
    Image.fromarray(deep).save(tmp_path / 'a.png')
    (frame, ), _ = read_all(tmp_path, color_type='unchanged')
    assert frame.image.dtype == np.uint16 and (frame.image == deep).all()
