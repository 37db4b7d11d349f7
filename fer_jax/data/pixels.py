"""Bytes and text to uint8 images, and back."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image

MAX_PIXELS = 100_000_000

FORMATS = ('JPEG', 'PNG', 'BMP', 'PPM', 'TIFF', 'WEBP', 'GIF')
_ORIENTATION = 0x0112  # the tag of EXIF, and how to undo its values
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG = b'\x89PNG\r\n\x1a\n'
_PNG_COLOURS = {1: 0, 3: 2}
_PIXELS = {f'{value:0{width}d}': value for value in range(256) for width in (1, 2, 3)}


class NotAPicture(ValueError):
    """Bytes of none of the formats that are read."""


class TooManyPixels(ValueError):
    """A picture larger than is wanted."""


def parse_pixels(text: str, height: int, width: int) -> np.ndarray:
    """Space-separated grey values to uint8 [height, width, 1].

    Raises:
        ValueError: on a wrong number of values, or one that is no integer in 0..255.
    """
    words = text.split()
    if len(words) != height * width:
        raise ValueError(f'{len(words)} pixels instead of {height * width}')
    try:
        values = bytes(map(_PIXELS.__getitem__, words))
    except KeyError as error:
        raise ValueError(f'pixel {error.args[0][:20]!r} is not an integer in 0..255') from None
    return np.frombuffer(values, np.uint8).reshape(height, width, 1)


def decode_picture(data: bytes, most_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A picture file to uint8 [H, W, C]: upright (EXIF), C is 1 where red, green and blue are equal everywhere, else 3.

    The format is told by content: JPEG, PNG, BMP, PPM, TIFF, WebP or GIF; of several frames the first. Transparent
    pixels lie on white, as in a browser; 16 bits become 8 by rounding; colour profiles are not applied. More than
    `most_pixels` in the header is refused before anything is decoded. Not for threads: it silences Pillow's warnings.

    Raises:
        NotAPicture: on other formats.
        TooManyPixels: on oversized pictures.
        ValueError: on damaged and truncated pictures, and on other colour modes; the two above are ValueErrors too.
    """
    return decode_unchanged(data, most_pixels)[0]


def decode_unchanged(data: bytes, most_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, bool]:
    """As `decode_picture`, and whether the bytes are a JPEG from which `decode_stored` gives just these pixels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                if picture.width * picture.height > most_pixels:
                    raise Image.DecompressionBombError
                plain = picture.format in ('JPEG', 'MPO') and picture.mode in ('L', 'RGB')
                picture.load()  # before EXIF is asked for: in PNG it can stand behind the pixels
                turn = _turn(picture)
                if turn is not None:
                    picture = picture.transpose(turn)
                return _eight_bits(picture), plain and turn is None
    except Image.UnidentifiedImageError:
        raise NotAPicture('not a picture (JPEG, PNG, BMP, PPM, TIFF, WebP, GIF)') from None
    except Image.DecompressionBombError:
        raise TooManyPixels(f'more than {most_pixels:,} pixels') from None
    except Exception as error:  # Pillow lets SyntaxError, struct.error, OSError and more through on damaged files
        raise ValueError(f'undecodable picture: {str(error) or type(error).__name__}') from None


def count_frames(data: bytes) -> int:
    """How many frames a GIF, PNG, WebP or TIFF has, of which `decode_picture` gives the first; 1 for anything else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(io.BytesIO(data), formats=('GIF', 'PNG', 'WEBP', 'TIFF')) as picture:
                return int(getattr(picture, 'n_frames', 1))
    except Exception:  # as above; who wants to know has decoded the first
        return 1


def decode_stored(data: bytes, *, spread: bool = False) -> np.ndarray:
    """A record's bytes (what `encode_png` wrote, or an upright 8-bit JPEG) to uint8 [H, W, C]; safe in threads.

    Args:
        spread: a grey picture may come in three equal channels; comparing those of a coloured JPEG of 224 pixels takes
            30 us of its 390.

    Raises:
        ValueError, OSError or zlib.error: on damaged bytes.
    """
    if data.startswith(_PNG):
        width, height, _, colour = struct.unpack_from('>IIBB', data, 16)
        return decode_png(data, (height, width, 3 if colour == _PNG_COLOURS[3] else 1))
    with Image.open(io.BytesIO(data), formats=('JPEG',)) as picture:
        pixels = np.asarray(picture)
        return pixels if spread and pixels.ndim == 3 else _without_equal_channels(pixels)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(picture.getexif().get(_ORIENTATION))
    except Exception:  # cameras and editors write EXIF that nobody can read; the pixels are sound
        return None


def _eight_bits(picture: Image.Image) -> np.ndarray:
    mode = picture.mode
    if mode.startswith('I'):  # 16 bits, in 16 or 32
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError('grey values beyond 16 bits')
        return ((values * 255 + 32767) // 65535).astype(np.uint8)[..., None]
    if mode in ('1', 'P', 'PA', 'LA', 'RGBA', 'RGBa') or 'transparency' in picture.info:
        white = Image.new('RGBA', picture.size, 'white')
        picture = Image.alpha_composite(white, picture.convert('RGBA')).convert('RGB')
    elif mode in ('CMYK', 'YCbCr', 'RGBX', 'HSV'):
        picture = picture.convert('RGB')
    elif mode not in ('L', 'RGB'):
        raise ValueError(f'colour mode {mode}')
    return _without_equal_channels(np.asarray(picture))


def _without_equal_channels(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H, W] or [H, W, 3] to [H, W, 1], or to [H, W, 3] where there is colour."""
    if pixels.ndim == 2:
        return pixels[..., None]
    red, green, blue = (pixels[..., channel] for channel in range(3))
    if np.array_equal(red, green) and np.array_equal(green, blue):
        return np.ascontiguousarray(red)[..., None]
    return pixels


def encode_png(image: np.ndarray) -> bytes:
    """uint8 [H, W, 1] or [H, W, 3] to PNG, all rows unfiltered so that `decode_png` is quick."""
    height, width, channels = image.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)
    rows[:, 1:] = image.reshape(height, -1)
    header = struct.pack('>IIBBBBB', width, height, 8, _PNG_COLOURS[channels], 0, 0, 0)
    return _PNG + b''.join(
        _png_chunk(*chunk) for chunk in ((b'IHDR', header), (b'IDAT', zlib.compress(rows.tobytes())), (b'IEND', b''))
    )


def decode_png(data: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """What `encode_png` wrote, to uint8 [H, W, C]; 10 us for a 48x48 image where Pillow takes 80.

    Raises:
        ValueError or zlib.error: on anything else.
    """
    height, width, channels = shape
    if len(data) < 41 or data[:26] != _PNG + b'\0\0\0\rIHDR' + struct.pack(
        '>IIBB', width, height, 8, _PNG_COLOURS[channels]
    ):
        raise ValueError(f'not a PNG of shape {shape}')
    (length,) = struct.unpack_from('>I', data, 33)
    rows = np.frombuffer(zlib.decompress(data[41 : 41 + length]), np.uint8).reshape(height, 1 + width * channels)
    if rows[:, 0].any():
        raise ValueError('a PNG with filtered rows')
    return rows[:, 1:].reshape(shape)


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))
