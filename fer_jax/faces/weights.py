"""MTCNN's three networks' weights, out of the PyPI package `mtcnn` (MIT licence), without running any of its code.

The package keeps one file per network: an LZ4 frame around what joblib pickled, a list of float32 arrays. Each file
is checked by its hash first. Then the pickle's opcodes are only listed (`pickletools`, which builds no object) to see
where the arrays' bytes stand between them; their shapes are those of `SHAPES`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import math
import pickletools
from pathlib import Path

import numpy as np

from fer_jax.data.files import printable
from fer_jax.errors import UserError

INSTALL = "pip install 'mtcnn==1.0.0'"

# SHA-256 of the files in mtcnn 1.0.0, the only release that keeps its weights this way.
HASHES = {
    'pnet': 'ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5',
    'rnet': 'cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee',
    'onet': '94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3',
}

# Kernels' shapes in the files' order. A kernel and its bias [out] make a layer; all but the heads have a PReLU [out].
_BODIES = {
    'pnet': {'conv1': (3, 3, 3, 10), 'conv2': (3, 3, 10, 16), 'conv3': (3, 3, 16, 32)},
    'rnet': {'conv1': (3, 3, 3, 28), 'conv2': (3, 3, 28, 48), 'conv3': (2, 2, 48, 64), 'dense': (576, 128)},
    'onet': {
        'conv1': (3, 3, 3, 32),
        'conv2': (3, 3, 32, 64),
        'conv3': (3, 3, 64, 64),
        'conv4': (2, 2, 64, 128),
        'dense': (1152, 256),
    },
}
_HEADS = {
    'pnet': {'box': (1, 1, 32, 4), 'face': (1, 1, 32, 2)},
    'rnet': {'box': (128, 4), 'face': (128, 2)},
    'onet': {'box': (256, 4), 'points': (256, 10), 'face': (256, 2)},
}


def load_weights(directory: Path | None = None) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """{network: {layer: {'kernel', 'bias', 'slope'}}}, float32; kernels HWIO or [in, out], `slope` of the PReLU.

    Args:
        directory: where pnet.lz4, rnet.lz4 and onet.lz4 lie; None: in the installed package `mtcnn`.

    Raises:
        UserError: if the package is not installed, or a file is missing or not the one that is known.
    """
    directory = directory or _package_directory()
    import lz4.frame  # comes with the package mtcnn

    weights = {}
    for network, known in HASHES.items():
        path = directory / f'{network}.lz4'
        try:
            packed = path.read_bytes()
        except OSError:
            raise UserError(f'{printable(path)} cannot be read; it comes with: {INSTALL}') from None
        if hashlib.sha256(packed).hexdigest() != known:
            raise UserError(f'{printable(path)} is not the file of mtcnn 1.0.0; it comes with: {INSTALL}')
        weights[network] = _layers(network, lz4.frame.decompress(packed))
    return weights


def _package_directory() -> Path:
    package = importlib.util.find_spec('mtcnn')  # looks it up and does not import it: that would need TensorFlow
    if package is None or importlib.util.find_spec('lz4') is None:
        raise UserError(f'the face detector needs the weights of the package mtcnn; install it with: {INSTALL}')
    return Path(package.submodule_search_locations[0]) / 'assets' / 'weights'


def _layers(network: str, pickled: bytes) -> dict[str, dict[str, np.ndarray]]:
    expected = []
    for name, shape in (_BODIES[network] | _HEADS[network]).items():
        expected += [(name, 'kernel', shape), (name, 'bias', shape[-1:])]
        if name in _BODIES[network]:
            expected.append((name, 'slope', shape[-1:]))
    layers: dict[str, dict[str, np.ndarray]] = {}
    for (name, kind, shape), values in zip(expected, _arrays(pickled, expected), strict=True):
        layers.setdefault(name, {})[kind] = values.reshape(shape)
    return layers


def _arrays(pickled: bytes, expected: list) -> list[np.ndarray]:
    """The arrays of a joblib pickle in their order, sizes given by `expected`.

    joblib writes an array as a pickled wrapper whose attributes are set by SETITEMS and BUILD; behind these stand one
    byte that counts padding, the padding, and the values.
    """
    stream, arrays, before = io.BytesIO(pickled), [], ''
    for opcode, _, _ in pickletools.genops(stream):
        if opcode.name == 'BUILD' and before == 'SETITEMS':
            stream.seek(stream.read(1)[0], io.SEEK_CUR)
            count = math.prod(expected[len(arrays)][2])
            arrays.append(np.frombuffer(stream.read(4 * count), '<f4'))
        before = opcode.name
    return arrays
