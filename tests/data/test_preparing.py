"""Pictures become shards, in this process or in others, once each; what cannot be used says why."""

import dataclasses
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_jax.data import preparing
from fer_jax.data.dataset import pixel_hash
from fer_jax.data.duplicates import perceptual_hash
from fer_jax.data.files import PictureFiles
from fer_jax.data.pixels import decode_stored
from fer_jax.data.preparing import plan_shards, prepare_pictures, read_face
from fer_jax.data.records import Candidate, FilePicture, PixelText
from fer_jax.data.shards import read_shards
from fer_jax.data.workers import in_order
from fer_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def candidate(picture, number=0, box=None):
    return Candidate(f'row {number}', 'train', 'fear', str(number), picture, box=box)


def text(number, side=6):
    values = np.random.default_rng(number).integers(0, 256, (side, side))
    return candidate(PixelText(' '.join(map(str, values.ravel())), side, side), number)


def write(path, image, **options):
    Image.fromarray(image.squeeze()).save(path, **options)
    return FilePicture(path)


def read(*arguments, shape=None, box=None):
    with PictureFiles() as files:
        return read_face(candidate(*arguments, box=box), shape, files)


@pytest.fixture
def large():
    return np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)


def test_a_large_jpeg_is_kept_as_it_is_and_anything_else_is_not(large, tmp_path):
    jpeg = write(tmp_path / 'a.jpg', large)
    image, kept = read(jpeg)
    assert kept == (tmp_path / 'a.jpg').read_bytes()
    np.testing.assert_array_equal(image, decode_stored(kept))
    assert read(jpeg, box=(0, 0, 90, 70))[1] == kept  # all of it
    assert read(jpeg, box=(0, 0, 90, 69))[1] is None
    assert read(write(tmp_path / 'a.png', large))[1] is None
    assert read(write(tmp_path / 'b.jpg', large[:48, :48]))[1] is None  # small: a PNG is decoded faster


@pytest.mark.parametrize(
    ('box', 'rows', 'columns'),
    [
        ((10, 20, 30, 40), (20, 60), (10, 40)),
        ((9.6, 20.4, 30.2, 39.8), (20, 60), (10, 40)),
        ((-5, -5, 20, 20), (0, 15), (0, 15)),
        ((80, 60, 1e9, 1e9), (60, 70), (80, 90)),
    ],
)
def test_the_box_is_cut_out(box, rows, columns, large, tmp_path):
    image, _ = read(write(tmp_path / 'a.png', large), box=box)
    np.testing.assert_array_equal(image, large[slice(*rows), slice(*columns)])


@pytest.mark.parametrize('box', [(90, 0, 5, 5), (-9, 0, 5, 5), (5, 5, 0, 5), (5, 5, -3, 5), (5, 5, 0.2, 0.2)])
def test_a_box_without_a_pixel_is_refused(box, large, tmp_path):
    with pytest.raises(ValueError, match=r'the face box \(.*\) lies outside the picture of 90x70 pixels'):
        read(write(tmp_path / 'a.png', large), box=box)


def test_what_has_no_number_is_no_box(large, tmp_path):
    with pytest.raises(ValueError, match='not finite'):
        read(write(tmp_path / 'a.png', large), box=(float('nan'), 0, 5, 5))


def test_the_shape_a_source_states_is_demanded(large, tmp_path):
    picture = write(tmp_path / 'a.png', large)
    assert read(picture, shape=(70, 90, 3))[0].shape == (70, 90, 3)
    with pytest.raises(ValueError, match='90x70 pixels instead of 70x90'):
        read(picture, shape=(90, 70, 3))
    with pytest.raises(ValueError, match='a colour picture instead of a grey one'):
        read(picture, shape=(70, 90, 1))
    assert read(write(tmp_path / 'b.png', large[..., 0]), shape=(70, 90, 3))[0].shape == (70, 90, 1)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(preparing, 'SHARD_SIZE', 10)


def prepared(candidates, folder, **options):
    plan = plan_shards(candidates, folder)
    done = []
    prepare_pictures(plan, image_shape=None, progress=done.append, **options)
    assert plan.done + sum(done) == len(candidates)
    return plan, *read_shards(folder, plan.counts)


def test_shards_hold_every_candidate_in_order(small_shards, large, tmp_path):
    write(tmp_path / 'a.jpg', large)
    broken = FilePicture(tmp_path / 'missing.jpg')
    candidates = [*map(text, range(23)), candidate(broken, 23), candidate(FilePicture(tmp_path / 'a.jpg'), 24)]
    (tmp_path / 'out').mkdir()
    plan, columns, pictures = prepared(candidates, tmp_path / 'out')
    assert (plan.counts, list(plan.missing), plan.done) == ([10, 10, 5], [0, 1, 2], 0)
    assert columns['reason'].tolist() == [''] * 23 + ['unreadable: not a regular file', '']
    for row in range(23):
        image, _ = read(text(row).picture)
        np.testing.assert_array_equal(pictures[row], image)
        assert columns['pixel_hash'][row] == pixel_hash(image)
        assert columns['perceptual_hash'][row] == perceptual_hash(image)
        assert tuple(columns['shape'][row]) == (6, 6, 1)
    assert pictures.encoded(24) == (tmp_path / 'a.jpg').read_bytes()
    np.testing.assert_array_equal(pictures.select(np.array([24, 3]))[1], pictures[3])


def test_what_is_done_is_not_done_again_unless_it_is_damaged(small_shards, tmp_path):
    candidates = list(map(text, range(35)))
    _, columns, _ = prepared(candidates, tmp_path)
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    (tmp_path / '000000.pictures').write_bytes(whole['000000.pictures'][:-1])
    (tmp_path / '000001.npz').unlink()
    (tmp_path / '000003.npz').write_bytes(whole['000003.npz'][:-20])
    plan, again, _ = prepared(candidates, tmp_path)
    assert (list(plan.missing), plan.done) == ([0, 1, 3], 10)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == whole
    remade = {path.name for path in tmp_path.iterdir() if path.stat().st_mtime_ns != times[path.name]}
    assert remade == {path.name for path in tmp_path.iterdir() if not path.name.startswith('000002')}
    for name, values in columns.items():
        np.testing.assert_array_equal(again[name], values)


@dataclasses.dataclass
class Aligned:
    image: np.ndarray
    found: bool
    move: np.ndarray


def darkest_corner(images):
    """Finds a face where the first pixel is dark; takes the upper left quarter for it."""
    assert 0 < len(images) <= 16
    return [Aligned(image[:3, :3], image[0, 0, 0] < 128, np.eye(2, 3)) for image in images]


@pytest.mark.parametrize('keep', (True, False))
def test_aligned_pictures_take_the_place_and_missing_faces_are_kept_or_rejected(keep, small_shards, tmp_path):
    candidates = [*map(text, range(43)), candidate(PixelText('1 2', 1, 3), 43)]
    _, columns, pictures = prepared(candidates, tmp_path, align=darkest_corner, keep_missing=keep)
    originals = [read(candidate.picture)[0] for candidate in candidates[:43]]
    dark = np.array([image[0, 0, 0] < 128 for image in originals])
    assert 10 < dark.sum() < 33
    np.testing.assert_array_equal(columns['found'][:43], dark)
    expected = np.where(dark | keep, '', 'no face found')
    assert columns['reason'].tolist() == [*expected, '2 pixels instead of 3']
    for row in np.flatnonzero(dark | keep):
        np.testing.assert_array_equal(pictures[int(row)], originals[row][:3, :3])


def test_what_waits_to_be_aligned_is_bounded_and_places_stay_those_of_the_whole_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, '_MOST_PIXELS', 100)
    seen = []

    def shifted(images):
        seen.extend(images)
        return [Aligned(image, True, np.array([(3.0, 0, 5), (0, 3, 7)])) for image in images]

    image = np.random.default_rng(0).integers(0, 256, (30, 41), np.uint8)
    candidates = [text(0), candidate(write(tmp_path / 'a.png', image), 1)]
    (tmp_path / 'out').mkdir()
    _, columns, _ = prepared(candidates, tmp_path / 'out', align=shifted)
    assert [image.shape for image in seen] == [(6, 6, 1), (8, 11, 1)]  # 1,230 pixels need a factor of 4
    np.testing.assert_allclose(seen[1][0, 0, 0], image[:4, :4].mean(), atol=0.6)
    np.testing.assert_array_equal(columns['move'][0], [(3, 0, 5), (0, 3, 7)])
    np.testing.assert_array_equal(columns['move'][1], [(0.75, 0, 5), (0, 0.75, 7)])


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_preparing import prepared, text, darkest_corner
from fer_jax.data import preparing
print('started')
preparing.SHARD_SIZE = 10
for align in (None, darkest_corner):
    folder = Path({output!r}, str(align is None))
    folder.mkdir(parents=True)
    prepared(list(map(text, range(45))), folder, workers=2, align=align)
"""


def test_other_processes_make_the_same_and_leave_the_callers_script_alone(small_shards, tmp_path):
    """The script has no `if __name__ == '__main__'`."""
    for align in (None, darkest_corner):
        folder = tmp_path / 'one' / str(align is None)
        folder.mkdir(parents=True)
        prepared(list(map(text, range(45))), folder, align=align)
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT.format(tests=os.path.dirname(__file__), output=str(tmp_path / 'two')))
    environment = os.environ | {'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, 'started\n', '')
    files = sorted((tmp_path / 'one').rglob('*.*'))
    assert len(files) == 20
    for path in files:
        assert (tmp_path / 'two' / path.relative_to(tmp_path / 'one')).read_bytes() == path.read_bytes(), path


def wait_or_die(number):
    if number == 3:
        os._exit(1)
    return number


def test_a_process_that_dies_is_one_line():
    with pytest.raises(UserError, match='a worker process died'):
        list(in_order(wait_or_die, ((number,) for number in range(9)), 2))


def test_only_a_few_jobs_are_taken_ahead():
    taken = []

    def jobs():
        for number in range(40):
            taken.append(number)
            yield (number + 10,)

    results = in_order(wait_or_die, jobs(), 2)
    assert next(results) == 10
    assert len(taken) <= 6
    assert list(results) == list(range(11, 50))


def test_a_picture_in_memory_is_closed_again(tmp_path):
    buffer = io.BytesIO()
    Image.new('L', (5, 5)).save(buffer, 'PNG')
    (tmp_path / 'a.png').write_bytes(buffer.getvalue())
    prepared([candidate(FilePicture(tmp_path / 'a.png'))], tmp_path)
    assert not preparing._FILES._zips


@dataclasses.dataclass(frozen=True)
class Deadly(FilePicture):
    """Ends any process but the one in which the test runs as soon as it is to be read."""

    tester: int = dataclasses.field(default_factory=os.getpid)

    def __getattribute__(self, name):
        if name == 'path' and os.getpid() != object.__getattribute__(self, 'tester'):
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().__getattribute__(name)


@pytest.mark.parametrize('align', (None, darkest_corner))
def test_a_picture_that_crashes_its_decoder_is_a_reject_like_any_other(align, small_shards, tmp_path):
    bad = {5, 12, 18}
    candidates = [candidate(Deadly(tmp_path / 'a.png'), row) if row in bad else text(row) for row in range(34)]
    _, columns, pictures = prepared(candidates, tmp_path, workers=2, align=align)
    assert columns['reason'].tolist() == [preparing.CRASHES if row in bad else '' for row in range(34)]
    np.testing.assert_array_equal(pictures[33][:3, :3], read(text(33).picture)[0][:3, :3])


def test_after_a_run_that_was_cut_short_even_one_shard_is_made_by_another_process(tmp_path):
    candidates = [text(0), candidate(Deadly(tmp_path / 'a.png'), 1), text(2)]
    _, columns, _ = prepared(candidates, tmp_path)
    assert columns['reason'].tolist() == ['', 'unreadable: not a regular file', '']
    (tmp_path / '000000.npz').unlink()
    (tmp_path / '000000.pictures.123').write_bytes(b'a part')
    _, columns, _ = prepared(candidates, tmp_path)
    assert columns['reason'].tolist() == ['', preparing.CRASHES, '']


def test_jobs_whose_processes_died_are_done_again_and_in_their_order():
    results = in_order(wait_or_die, ((number % 7,) for number in range(12)), 2, rescue=lambda number: -number)
    assert list(results) == [-3 if number % 7 == 3 else number % 7 for number in range(12)]
