"""Bytes and text to uint8 images, and back."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image

_FORMATS = ('JPEG', 'PNG', 'BMP', 'PPM', 'TIFF')
_PNG = b'\x89PNG\r\n\x1a\n'
_PNG_COLOURS = {1: 0, 3: 2}
_PIXELS = {f'{value:0{width}d}': value for value in range(256) for width in (1, 2, 3)}


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


def decode_grey(data: bytes, height: int, width: int) -> np.ndarray:
    """A grey picture file to uint8 [height, width, 1]; colour files pass where red, green and blue are equal.

    The size is checked in the header, so that a decompression bomb is refused before it is decoded.

    Raises:
        ValueError: on undecodable bytes, another size, colours, transparency or another depth.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
                if picture.size != (width, height):
                    raise ValueError('{}x{} pixels instead of {}x{}'.format(*picture.size, width, height))
                if picture.mode == 'L':
                    return np.asarray(picture)[..., None]
                if picture.mode not in ('1', 'P', 'LA', 'RGB', 'RGBA'):
                    raise ValueError(f'colour mode {picture.mode} instead of grey')
                pixels = np.asarray(picture.convert('RGBA'))
    except Image.UnidentifiedImageError:
        raise ValueError('not a picture (JPEG, PNG, BMP, PPM, TIFF)') from None
    except ValueError:
        raise
    except Exception as error:  # Pillow lets SyntaxError, struct.error, OSError and more through on damaged files
        raise ValueError(f'undecodable picture: {str(error) or type(error).__name__}') from None
    if (pixels[..., 3] != 255).any():
        raise ValueError('transparent pixels')
    if (pixels[..., :1] != pixels[..., 1:3]).any():
        raise ValueError('a colour picture instead of a grey one')
    return np.ascontiguousarray(pixels[..., :1])


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
