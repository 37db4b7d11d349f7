import hashlib
import importlib.util
import pickle

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.faces import weights
from fer_jax.faces.weights import load_weights


@pytest.fixture
def files(package, tmp_path):
    """A copy of the package's weights that may be damaged."""
    for name in weights.HASHES:
        (tmp_path / f'{name}.lz4').write_bytes((weights._package_directory() / f'{name}.lz4').read_bytes())
    return tmp_path


def test_arrays_are_those_that_joblib_reads(package):
    joblib = pytest.importorskip('joblib', reason='joblib is the independent reader')
    ours = load_weights()
    for network, layers in ours.items():
        theirs = joblib.load(weights._package_directory() / f'{network}.lz4')
        flat = [array for layer in layers.values() for array in layer.values()]
        assert len(flat) == len(theirs) == {'pnet': 13, 'rnet': 16, 'onet': 21}[network]
        for array, expected in zip(flat, theirs, strict=True):
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, np.squeeze(expected) if array.ndim == 1 else expected)
    assert sum(array.size for layer in ours['pnet'].values() for array in layer.values()) == 6632


def test_a_changed_file_is_refused(files):
    path = files / 'rnet.lz4'
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r'rnet\.lz4 is not the file of mtcnn 1\.0\.0.*pip install'):
        load_weights(files)


def test_a_missing_file_is_named(files):
    (files / 'onet.lz4').unlink()
    with pytest.raises(UserError, match=r'onet\.lz4 cannot be read.*pip install'):
        load_weights(files)


@pytest.mark.parametrize('absent', ['mtcnn', 'lz4'])
def test_without_the_package_one_line_says_how_to_get_it(monkeypatch, absent):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == absent else find(name))
    with pytest.raises(UserError, match="install it with: pip install 'mtcnn==1.0.0'") as raised:
        load_weights()
    assert '\n' not in str(raised.value)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, 'w')


def test_nothing_in_a_file_is_run(files, monkeypatch):
    """Even if a hash were forged, a pickle that would write a file when loaded does not."""
    frame = pytest.importorskip('lz4.frame', reason='lz4 comes with the package mtcnn')
    evil, harm = pickle.dumps(Evil(str(files / 'harm'))), files / 'harm'
    packed = frame.compress(evil)
    (files / 'pnet.lz4').write_bytes(packed)
    monkeypatch.setitem(weights.HASHES, 'pnet', hashlib.sha256(packed).hexdigest())
    with pytest.raises(ValueError):
        load_weights(files)
    assert not harm.exists()
    pickle.loads(evil).close()
    assert harm.exists(), 'the pickle was harmless: the test showed nothing'
