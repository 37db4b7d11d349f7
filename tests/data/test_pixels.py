"""Text and picture files become exactly the pixels they hold, or are refused."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from fer_jax.data.pixels import decode_grey, decode_png, encode_png, parse_pixels


def saved(picture, **options):
    buffer = io.BytesIO()
    picture.save(buffer, **options)
    return buffer.getvalue()


@pytest.fixture
def grey():
    return np.random.default_rng(1).integers(0, 256, (48, 48), np.uint8)


def test_every_value_is_parsed_in_row_order():
    image = parse_pixels(' '.join(map(str, range(256))) + '\n', 8, 32)
    np.testing.assert_array_equal(image, np.arange(256, dtype=np.uint8).reshape(8, 32, 1))
    np.testing.assert_array_equal(parse_pixels('007 010  8 09', 2, 2).ravel(), [7, 10, 8, 9])


@pytest.mark.parametrize('word', ('256', '-0', '+1', '1e2', '1_0', '0x1', '1.0', '²', '0001'))
def test_what_is_no_grey_value_is_refused(word):
    with pytest.raises(ValueError, match='is not an integer in 0..255'):
        parse_pixels(f'1 2 3 {word}', 2, 2)


@pytest.mark.parametrize('channels', (1, 3))
def test_png_comes_back_exactly_and_pillow_reads_it_too(channels):
    image = np.random.default_rng(2).integers(0, 256, (48, 31, channels), np.uint8)
    data = encode_png(image)
    np.testing.assert_array_equal(decode_png(data, image.shape), image)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))).reshape(image.shape), image)


def test_a_png_of_another_shape_or_with_filters_is_refused(grey):
    with pytest.raises(ValueError, match='not a PNG of shape'):
        decode_png(encode_png(grey[..., None]), (24, 96, 1))
    filtered = saved(Image.fromarray(np.add.outer(np.arange(48), np.arange(48)).astype(np.uint8)), format='PNG')
    with pytest.raises(ValueError, match='filtered rows'):
        decode_png(filtered, (48, 48, 1))


@pytest.mark.parametrize('form', ('PNG', 'BMP', 'PPM', 'TIFF'))
def test_lossless_pictures_keep_their_pixels(form, grey):
    np.testing.assert_array_equal(decode_grey(saved(Image.fromarray(grey), format=form), 48, 48)[..., 0], grey)


@pytest.mark.parametrize('mode', ('RGB', 'RGBA', 'LA', 'P'))
def test_grey_in_colour_files_passes(mode, grey):
    picture = Image.fromarray(grey).convert(mode)
    np.testing.assert_array_equal(decode_grey(saved(picture, format='PNG'), 48, 48)[..., 0], grey)


def test_colour_transparency_and_depth_are_refused(grey):
    red = np.stack([grey, grey, grey ^ 1], -1)
    with pytest.raises(ValueError, match='colour picture'):
        decode_grey(saved(Image.fromarray(red), format='PNG'), 48, 48)
    glass = np.stack([grey, np.full_like(grey, 254)], -1)
    with pytest.raises(ValueError, match='transparent'):
        decode_grey(saved(Image.fromarray(glass, 'LA'), format='PNG'), 48, 48)
    with pytest.raises(ValueError, match='colour mode'):
        decode_grey(saved(Image.fromarray(grey.astype(np.uint16) * 257), format='PNG'), 48, 48)


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    header = b'IHDR' + struct.pack('>IIBBBBB', 60000, 60000, 8, 0, 0, 0, 0)
    bomb = b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + header + struct.pack('>I', zlib.crc32(header))
    start = time.perf_counter()
    with pytest.raises(ValueError):
        decode_grey(bomb + bytes(100), 48, 48)
    assert time.perf_counter() - start < 1
