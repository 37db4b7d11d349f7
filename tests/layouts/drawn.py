"""What every layout is made of: drawn faces, files, and the statement of what reading must give.

Each writer fills a directory and returns what is expected of it. With `faults=True` it adds one of every fault that its
reader knows; they add rejects (and examples whose pictures turn out broken when decoded) and change nothing else. An
expected reason that ends with … is only the beginning of what must be said.
"""

import dataclasses
import functools
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from fer_jax.data.dataset import EMOTIONS, SPLITS
from fer_jax.data.files import PictureFiles
from fer_jax.data.pixels import decode_picture, parse_pixels
from fer_jax.data.records import Candidate, PixelText, ReaderOptions, Reject
from fer_jax.data.synthetic import render, sample_parameters

SIDE = 48
MOST = 32  # faces of an emotion that are drawn


@dataclasses.dataclass(frozen=True)
class Row:
    """An example that a reader must give; `numbers` compare with NaN equal to NaN."""

    emotion: str
    split: str
    subject: str = ''
    sequence: str = ''
    box: tuple | None = None
    numbers: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Expected:
    """What reading `path` must give: rows by id, reasons by location, and the ids whose pictures cannot be decoded."""

    path: Path
    class_names: tuple[str, ...] = EMOTIONS
    rows: dict[str, Row] = dataclasses.field(default_factory=dict)
    rejects: dict[str, str] = dataclasses.field(default_factory=dict)
    broken: set[str] = dataclasses.field(default_factory=set)
    skipped: set[str] = dataclasses.field(default_factory=set)


@functools.lru_cache
def _drawn():
    """Grey [MOST, 8, SIDE, SIDE, 1]: two faces of each emotion for each of 16 people, in the order of EMOTIONS."""
    parameters, _ = sample_parameters(0, np.arange(8 * MOST), min_intensity=0.5, blend_rate=0.0)
    return render(parameters, SIDE, 1).reshape(MOST, 8, SIDE, SIDE, 1)


def face(emotion, number, channels=3):
    """uint8 [SIDE, SIDE, channels]; faces 2 n and 2 n + 1 are of the same person. Three channels are tinted grey."""
    grey = _drawn()[number, EMOTIONS.index(emotion)]
    return grey if channels == 1 else np.round(grey * (1.0, 0.85, 0.7)).astype(np.uint8)


def encode(image, kind='PNG'):
    """A picture file's bytes; PNG keeps every pixel."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, kind)
    return buffer.getvalue()


def write(path, content):
    """Writes bytes or text, making the folders above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def write_zip(path, folder, top=''):
    """Zips what a directory holds, under `top`."""
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob('*'), reverse=True):
            if file.is_file():
                archive.write(file, top + file.relative_to(folder).as_posix())
    return path


def pixels(image):
    """Space-separated values, as in a CSV cell."""
    return ' '.join(map(str, image[..., 0].ravel()))


class Trap:
    """Makes a directory when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def npy(value):
    """The bytes of an npy file."""
    buffer = io.BytesIO()
    np.save(buffer, value)
    return buffer.getvalue()


def trap_npy(path):
    """An npy file with a pickle inside that would create `path`."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {'descr': '|O', 'fortran_order': False, 'shape': ()})
    return buffer.getvalue() + pickle.dumps(Trap(path))


def huge_npy():
    """A header that claims 8 TB, and no data."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {'descr': '<f8', 'fortran_order': False, 'shape': (1 << 40,)})
    return buffer.getvalue()


def read(open_source, path, **options):
    """Candidates, rejects and the source; every candidate has an id, a class and a split of its own.

    Where a source is cut anew, every picture is taken to be readable.
    """
    with open_source(path, ReaderOptions(**options)) as source:
        records = list(source.read())
    assert len(records) == source.total
    rejects = [record for record in records if isinstance(record, Reject)]
    candidates = cut_anew(source, [record for record in records if isinstance(record, Candidate)])
    assert len({candidate.id for candidate in candidates}) == len(candidates)
    assert {candidate.emotion for candidate in candidates} <= set(source.class_names)
    assert {candidate.split for candidate in candidates} <= set(SPLITS)
    return candidates, rejects, source


def cut_anew(source, candidates):
    """The candidates in the splits to which they come when all their pictures can be read."""
    if source.cut is None:
        return candidates
    train = [candidate for candidate in candidates if candidate.split == 'train']
    split_of = source.cut((candidate.id, candidate.emotion, candidate.subject) for candidate in train)
    assert split_of.keys() == {candidate.id for candidate in train}
    return [
        dataclasses.replace(candidate, split=split_of.get(candidate.id, candidate.split)) for candidate in candidates
    ]


def compare(open_source, expected, path=None, **options):
    """Asserts that reading gives exactly what is expected, broken pictures included; returns the source."""
    candidates, rejects, source = read(open_source, path or expected.path, **options)
    own = sorted(set(expected.class_names) - set(EMOTIONS))
    assert source.class_names == (*(name for name in EMOTIONS if name in expected.class_names), *own)
    reasons = {reject.location: reject.reason for reject in rejects}
    assert len(reasons) == len(rejects)
    assert reasons.keys() == expected.rejects.keys()
    for location, reason in expected.rejects.items():
        said = reasons[location]
        assert said.startswith(reason[:-1]) if reason.endswith('…') else said == reason, (location, said, reason)
    assert {candidate.id for candidate in candidates} == expected.rows.keys()
    for candidate in candidates:
        row = expected.rows[candidate.id]
        found = (candidate.emotion, candidate.split, candidate.subject, candidate.sequence, candidate.box)
        assert found == (row.emotion, row.split, row.subject, row.sequence, row.box)
        assert candidate.numbers.keys() == row.numbers.keys()
        for name, value in row.numbers.items():
            assert candidate.numbers[name].dtype == np.float32
            np.testing.assert_array_equal(candidate.numbers[name], np.float32(value))
    assert set(source.skipped) == expected.skipped
    assert {candidate.id for candidate in candidates if not _decodes(candidate)} == expected.broken
    return source


def _decodes(candidate):
    try:
        decode_candidate(candidate)
    except ValueError:
        return False
    return True


def decode_candidate(candidate):
    """uint8 [H, W, C], as the pipeline decodes it before boxes are cut out."""
    picture = candidate.picture
    if isinstance(picture, PixelText):
        return parse_pixels(picture.text, picture.height, picture.width)
    with PictureFiles() as files:
        return decode_picture(files.read(picture, 1 << 26))
