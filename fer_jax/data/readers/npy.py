"""Small .npy files, read from bytes without ever unpickling."""

from __future__ import annotations

import functools
import io
import math
import warnings

import numpy as np

from fer_jax.data.files import Member

_MAX_BYTES = 1 << 16
_MAX_HEADER = 1 << 10
_KINDS = 'biufSU'
_LENGTH_BYTES = {b'\1\0': 2, b'\2\0': 4}  # by version: how many bytes tell the header's length


def read_npy(member: Member) -> np.ndarray:
    """The array in a file of at most 64 KiB.

    Raises:
        ValueError: as `parse_npy`, and if the file is larger or cannot be read.
    """
    return parse_npy(member.read(_MAX_BYTES))


def parse_npy(data: bytes) -> np.ndarray:
    """Numbers or strings of any shape; the header must fit the length of the data, so nothing is allocated on its word.

    Raises:
        ValueError: on anything else, arrays of objects (which are pickles) among them.
    """
    if not data.startswith(b'\x93NUMPY') or data[6:8] not in _LENGTH_BYTES:
        raise ValueError('not a npy file')
    start = 8 + _LENGTH_BYTES[data[6:8]]
    start += int.from_bytes(data[8:start], 'little')
    if start > min(_MAX_HEADER, len(data)):
        raise ValueError('a npy file whose header is cut off or too long')
    shape, fortran_order, dtype = _parse_header(data[:start])
    length = len(data) - start
    if not dtype.itemsize or length != math.prod(shape) * dtype.itemsize or min(shape, default=0) < 0:
        raise ValueError(f'a npy file whose header {shape} {dtype} does not fit its {length} bytes of data')
    return np.frombuffer(data[start:], dtype).reshape(shape, order='F' if fortran_order else 'C')


@functools.lru_cache(maxsize=256)  # a release's files have a few headers between them; parsing one takes 50 us
def _parse_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    file = io.BytesIO(header[8:])
    read = np.lib.format.read_array_header_1_0 if header[6] == 1 else np.lib.format.read_array_header_2_0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            shape, fortran_order, dtype = read(file, max_header_size=_MAX_HEADER)
    except Exception as error:  # numpy lets SyntaxError, TokenError, RecursionError and more through
        raise ValueError(f'a npy file with a damaged header: {" ".join(str(error).split())[:80]}') from None
    if dtype.hasobject or dtype.kind not in _KINDS:
        raise ValueError(f'a npy file of {"objects" if dtype.hasobject else dtype}, which is not read')
    return shape, fortran_order, dtype


def parse_number(data: np.ndarray | str) -> float:
    """One number, from an array of one element (a number or a string) or from text.

    Raises:
        ValueError: on anything else.
    """
    if not isinstance(data, str):
        if data.size != 1:
            raise ValueError(f'{data.size} values instead of one')
        try:
            data = data.reshape(()).item()
        except Exception:  # characters beyond Unicode
            raise ValueError('a damaged string instead of a number') from None
    if isinstance(data, bytes):
        data = data.decode('latin-1')
    try:
        return float(data)
    except (ValueError, OverflowError):
        raise ValueError(f'{str(data)[:20]!r} is not a number') from None
