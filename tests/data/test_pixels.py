"""Text and picture files become exactly the pixels they hold, or are refused."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from fer_jax.data.pixels import (
    NotAPicture,
    TooManyPixels,
    count_frames,
    decode_picture,
    decode_png,
    decode_stored,
    decode_unchanged,
    encode_png,
    parse_pixels,
)

FORMATS = ('PNG', 'BMP', 'PPM', 'TIFF', 'WEBP', 'JPEG')


def saved(picture, form='PNG', **options):
    buffer = io.BytesIO()
    picture.save(buffer, form, **({'lossless': True} if form == 'WEBP' else {}), **options)
    return buffer.getvalue()


@pytest.fixture
def grey():
    return np.random.default_rng(1).integers(0, 256, (48, 31), np.uint8)


@pytest.fixture
def colour():
    return np.random.default_rng(2).integers(0, 256, (48, 31, 3), np.uint8)


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
    np.testing.assert_array_equal(decode_stored(data), image)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))).reshape(image.shape), image)


def test_a_png_of_another_shape_or_with_filters_is_refused(grey):
    with pytest.raises(ValueError, match='not a PNG of shape'):
        decode_png(encode_png(grey[..., None]), (24, 62, 1))
    filtered = saved(Image.fromarray(np.add.outer(np.arange(48), np.arange(48)).astype(np.uint8)))
    with pytest.raises(ValueError, match='filtered rows'):
        decode_png(filtered, (48, 48, 1))


@pytest.mark.parametrize('form', FORMATS[:-1])
def test_lossless_pictures_keep_their_pixels(form, grey, colour):
    if form != 'WEBP':  # knows no grey
        np.testing.assert_array_equal(decode_picture(saved(Image.fromarray(grey), form)), grey[..., None])
    np.testing.assert_array_equal(decode_picture(saved(Image.fromarray(colour), form)), colour)


@pytest.mark.parametrize('mode', ('RGB', 'RGBA', 'LA', 'P'))
def test_grey_in_colour_files_is_grey(mode, grey):
    np.testing.assert_array_equal(decode_picture(saved(Image.fromarray(grey).convert(mode))), grey[..., None])


def test_what_is_transparent_lies_on_white(colour):
    alpha = np.zeros(colour.shape[:2], np.uint8)
    alpha[:, 10:20], alpha[:, 20:] = 255, 128
    pixels = decode_picture(saved(Image.fromarray(np.dstack([colour, alpha]), 'RGBA')))
    assert (pixels[:, :10] == 255).all()
    np.testing.assert_array_equal(pixels[:, 10:20], colour[:, 10:20])
    halfway = (colour[:, 20:].astype(int) * 128 + 255 * 127) / 255
    assert abs(pixels[:, 20:] - halfway).max() <= 1
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), 'P')
    palette.putpalette([9, 99, 199, 50, 60, 70])
    np.testing.assert_array_equal(
        decode_picture(saved(palette, transparency=0)), [[[255] * 3, [50, 60, 70]], [[50, 60, 70], [255] * 3]]
    )


def test_sixteen_bits_are_rounded_to_eight():
    values = np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)
    for form in ('PNG', 'TIFF'):
        np.testing.assert_array_equal(
            decode_picture(saved(Image.fromarray(values), form))[0, :, 0], [0, 0, 1, 1, 128, 255]
        )
    too_high = np.array([[70000]], np.int32)
    with pytest.raises(ValueError, match='beyond 16 bits'):
        decode_picture(saved(Image.fromarray(too_high), 'TIFF'))


def test_four_inks_become_colours_and_modes_without_meaning_are_refused(colour):
    smooth = Image.fromarray(colour).resize((40, 40)).resize((200, 200))
    pixels = decode_picture(saved(smooth.convert('CMYK'), 'JPEG', quality=98)).astype(int)
    assert abs(pixels - np.asarray(smooth)).mean() < 3
    with pytest.raises(ValueError, match='colour mode F'):
        decode_picture(saved(Image.fromarray(np.ones((4, 4), np.float32)), 'TIFF'))


@pytest.mark.parametrize('form', ('JPEG', 'PNG', 'WEBP', 'TIFF'))
@pytest.mark.parametrize('value', range(1, 10))
def test_pictures_are_turned_upright_as_pillow_turns_them(form, value, colour):
    exif = Image.Exif()
    exif[0x0112] = value
    data = saved(Image.fromarray(colour), form, exif=exif)
    with Image.open(io.BytesIO(data)) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    image, unchanged = decode_unchanged(data)
    np.testing.assert_array_equal(image, expected)
    assert image.shape == ((31, 48, 3) if 5 <= value <= 8 else (48, 31, 3))
    assert unchanged == (form == 'JPEG' and value in (1, 9))


def test_unreadable_exif_does_not_cost_the_picture(colour):
    data = saved(Image.fromarray(colour), 'JPEG', exif=b'Exif\0\0II*\0\xff\xff\xff\xff broken')
    image, unchanged = decode_unchanged(data)
    assert image.shape == (48, 31, 3) and unchanged


def test_a_jpeg_is_kept_only_if_it_holds_just_these_pixels(grey, colour):
    same = Image.fromarray(grey)
    for picture, channels in ((same, 1), (Image.fromarray(colour), 3), (same.convert('RGB'), 1)):
        data = saved(picture, 'JPEG')
        image, unchanged = decode_unchanged(data)
        assert unchanged and image.shape == (48, 31, channels)
        np.testing.assert_array_equal(decode_stored(data), image)
    assert not decode_unchanged(saved(Image.fromarray(colour).convert('CMYK'), 'JPEG'))[1]
    assert not decode_unchanged(saved(Image.fromarray(colour)))[1]


@pytest.mark.parametrize('form', ('WEBP', 'PNG', 'TIFF'))
def test_of_several_frames_the_first_counts(form, colour):
    frames = [Image.fromarray(colour), Image.fromarray(255 - colour)]
    np.testing.assert_array_equal(
        decode_picture(saved(frames[0], form, save_all=True, append_images=frames[1:])), colour
    )


def test_a_gif_gives_its_first_frame_and_is_refused_where_it_is_cut_short(grey, colour):
    few = Image.fromarray(colour).quantize(64)
    data = saved(few, 'GIF', save_all=True, append_images=[few.transpose(Image.Transpose.ROTATE_180)])
    np.testing.assert_array_equal(decode_picture(data), np.asarray(few.convert('RGB')))
    np.testing.assert_array_equal(decode_picture(saved(Image.fromarray(grey), 'GIF')), grey[..., None])
    for length in (20, 200, 900):
        with pytest.raises(ValueError, match='not a picture|undecodable picture'):
            decode_picture(data[:length])


def test_frames_are_counted(colour):
    first, second = Image.fromarray(colour), Image.fromarray(255 - colour)
    for form in ('GIF', 'WEBP', 'PNG', 'TIFF'):
        assert count_frames(saved(first, form, save_all=True, append_images=[second])) == 2, form
        assert count_frames(saved(first, form)) == 1, form
    assert count_frames(saved(first, 'JPEG')) == count_frames(b'') == count_frames(b'GIF89a') == 1


@pytest.mark.parametrize('form', FORMATS)
def test_truncated_pictures_are_refused(form, colour):
    data = saved(Image.fromarray(colour), form)
    for length in (0, 1, 20, len(data) // 2, len(data) * 9 // 10):
        with pytest.raises(ValueError, match='not a picture|undecodable picture'):
            decode_picture(data[:length])


def png_header(width, height):
    header = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    start = b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + header + struct.pack('>I', zlib.crc32(header))
    return start + struct.pack('>I', 100) + b'IDAT' + bytes(104)


def bmp_header(width, height):
    return (
        b'BM' + struct.pack('<IHHIIiiHHIIiiII', 154, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(100)
    )


@pytest.mark.parametrize('size', ((10001, 10000), (60000, 60000)))
@pytest.mark.parametrize('bomb', (png_header, bmp_header, lambda *size: b'P6 %d %d 255\n' % size + bytes(100)))
def test_a_decompression_bomb_is_refused_before_it_is_decoded(bomb, size):
    start = time.perf_counter()
    with pytest.raises(ValueError, match='more than 100,000,000 pixels'):
        decode_picture(bomb(*size))
    assert time.perf_counter() - start < 1


def test_pixels_can_be_limited_further(grey):
    data = encode_png(grey[..., None])
    pixels = grey.shape[0] * grey.shape[1]
    np.testing.assert_array_equal(decode_picture(data, pixels)[..., 0], grey)
    with pytest.raises(TooManyPixels, match=f'more than {pixels - 1:,} pixels'):
        decode_picture(data, pixels - 1)
    with pytest.raises(NotAPicture):
        decode_picture(b'<svg/>', 1)


def test_other_things_are_no_pictures():
    icon = saved(Image.new('L', (16, 16)), 'ICO')
    for data in (b'', b'hello', b'%PDF-1.4', b'<svg/>', icon):
        with pytest.raises(ValueError, match='not a picture'):
            decode_picture(data)


@pytest.mark.parametrize('form', FORMATS)
def test_mutated_pictures_decode_or_are_refused_in_one_line(form, colour):
    rng = np.random.default_rng(11)
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {} if form in ('BMP', 'PPM') else {'exif': exif}
    data = np.frombuffer(saved(Image.fromarray(colour), form, **options), np.uint8)
    refused = 0
    for _ in range(400):
        mutant = data.copy()
        places = rng.integers(0, min(len(data), rng.choice([40, 400, len(data)])), rng.integers(1, 8))
        mutant[places] = rng.integers(0, 256, len(places))
        if rng.random() < 0.2:
            mutant = np.delete(mutant, slice(places[0], places[0] + rng.integers(1, 30)))
        try:
            image = decode_picture(mutant.tobytes())
        except ValueError as error:
            refused += 1
            assert str(error) and '\n' not in str(error)
        else:
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] in (1, 3)
    assert refused > 20


def test_a_grey_picture_in_three_channels_may_stay_so():
    grey = np.random.default_rng(0).integers(0, 256, (70, 80), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.stack([grey] * 3, -1)).save(buffer, 'JPEG', subsampling=0)
    one, three = (decode_stored(buffer.getvalue(), spread=spread) for spread in (False, True))
    assert (one.shape, three.shape) == ((70, 80, 1), (70, 80, 3))
    np.testing.assert_array_equal(three, np.repeat(one, 3, -1))
