"""What is stored comes back exactly, at once or when it is asked for; what has been damaged is noticed."""

import io
import json
import multiprocessing
import pickle
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from fer_jax.data import prepared, stored
from fer_jax.data.dataset import SPLITS, Dataset, Split, pixel_hash
from fer_jax.data.pixels import decode_stored, encode_png
from fer_jax.data.prepared import MANIFEST, index_path
from fer_jax.data.stored import StoredImages, fit_images, load_prepared
from fer_jax.errors import UserError

CLASSES = ('anger', 'happiness', 'neutral')


def jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, 'JPEG', quality=95)
    return file.getvalue()


def smooth(rng, height, width, channels):
    """A picture whose JPEG looks like it."""
    coarse = rng.integers(0, 256, (5, 5, channels)).astype(np.uint8)
    return fit_images(coarse[None], max(height, width), 0)[0][:height, :width]


def write(folder, pictures, extra=None):
    """Prepares a directory of records in several files from bytes per split; returns what should be read."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    splits = {}
    for name, encoded in pictures.items():
        n = len(encoded)
        images = [decode_stored(data) for data in encoded]
        labels = rng.integers(0, 3, n).astype(np.int32)
        ids = np.array([f'{name} é {index}' for index in range(n)], str)
        hashes = np.array([pixel_hash(image) for image in images], str)
        splits[name] = Split(images, labels, ids, hashes, {key: values[:n] for key, values in (extra or {}).items()})
    shapes = [image.shape for split in splits.values() for image in split.images]
    sides = {shape[:2] for shape in shapes}
    channels = max(shape[2] for shape in shapes)
    manifest = prepared.describe(
        'faces', CLASSES, splits, (*sides.pop(), channels) if len(sides) == 1 else None, channels
    )
    data = Dataset('faces', CLASSES, splits, manifest | {'source': {'name': 'a test'}})
    with mock.patch.object(prepared, '_PER_FILE', 13):
        prepared.store_prepared(data, folder, pictures=pictures)
    return data


def png_set(folder, sizes=(40, 7, 5), shape=(20, 30, 1), **more):
    rng = np.random.default_rng(3)
    draw = lambda n: [encode_png(rng.integers(0, 256, shape, np.uint8)) for _ in range(n)]
    return write(folder, {name: draw(n) for name, n in zip(SPLITS, sizes, strict=False)}, **more)


@pytest.fixture(scope='module')
def colours(tmp_path_factory):
    """JPEGs of 60x60, in colour but for two, and what they decode to: (directory, pictures, lazily read images)."""
    folder = tmp_path_factory.mktemp('stored') / 'colours'
    rng = np.random.default_rng(5)
    encoded = [jpeg(smooth(rng, 60, 60, 1 if index in (2, 9) else 3)) for index in range(50)]
    data = write(folder, {'train': encoded, 'validation': encoded[:3]})
    pictures = np.stack([np.broadcast_to(image, (60, 60, 3)) for image in data.splits['train'].images])
    return folder, pictures, load_prepared(folder, lazy=True).splits['train'].images


# --- a directory ---


@pytest.mark.parametrize('lazy', [False, True])
@pytest.mark.parametrize('options', [{}, {'shape': (16, 16, 3)}, {'sizes': (3, 0, 2)}, {'sizes': (9, 4)}])
def test_everything_comes_back_in_order(tmp_path, options, lazy):
    extra = {'subject': np.array([f'S{n}' for n in range(40)]), 'votes': np.arange(400.0).reshape(40, 10)}
    data = png_set(tmp_path / 'ä b', extra=extra, **options)
    loaded = load_prepared(tmp_path / 'ä b', lazy=lazy)
    assert (loaded.name, loaded.class_names, loaded.manifest) == ('faces', CLASSES, data.manifest)
    assert list(loaded.splits) == list(data.splits)
    for name, split in data.splits.items():
        found = loaded.splits[name]
        assert isinstance(found.images, StoredImages if lazy else np.ndarray)
        assert found.images.dtype == np.uint8
        assert found.images.shape == (len(split), *options.get('shape', (20, 30, 1)))
        assert found.images.nbytes == sum(image.nbytes for image in split.images)
        np.testing.assert_array_equal(found.images, np.reshape(split.images, found.images.shape))
        for field in ('labels', 'ids', 'pixel_hashes'):
            np.testing.assert_array_equal(getattr(found, field), getattr(split, field))
            assert getattr(found, field).dtype.kind == getattr(split, field).dtype.kind
        assert found.extra.keys() == ({'votes', 'subject'} if len(split) else {'votes'})
        np.testing.assert_array_equal(found.extra['votes'], split.extra['votes'])


def cut_records(folder):
    path = next(folder.glob('*train.array_record*'))
    path.write_bytes(path.read_bytes()[:-3000])


def cut_index(folder):
    path = index_path(folder, 'train')
    path.write_bytes(path.read_bytes()[:300])


def edit_counts(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest['counts']['train']['anger'] += 1
    (folder / MANIFEST).write_text(json.dumps(manifest))


def edit_label(folder):
    """One label moved and the counts with it: only the checksum can tell."""
    with np.load(index_path(folder, 'train')) as index:
        columns = dict(index)
    old, new = columns['label'][0], (columns['label'][0] + 1) % 3
    columns['label'][0] = new
    np.savez(index_path(folder, 'train'), **columns)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest['counts']['train'][CLASSES[old]] -= 1
    manifest['counts']['train'][CLASSES[new]] += 1
    (folder / MANIFEST).write_text(json.dumps(manifest))


def remove_a_file(folder):
    next(folder.glob('*train.array_record-00001*')).unlink()


def remove_an_index(folder):
    index_path(folder, 'validation').unlink()


DAMAGES = (cut_records, cut_index, edit_counts, edit_label, remove_a_file, remove_an_index)


@pytest.mark.parametrize('lazy', [False, True])
@pytest.mark.parametrize('damage', DAMAGES)
def test_damage_is_one_line_that_names_the_command(tmp_path, damage, lazy):
    png_set(tmp_path / 'out')
    damage(tmp_path / 'out')
    with pytest.raises(UserError) as raised:
        load_prepared(tmp_path / 'out', lazy=lazy)
    assert 'is damaged' in str(raised.value)
    assert str(raised.value).endswith(f'--output={tmp_path / "out"} --overwrite')
    assert '\n' not in str(raised.value)


def test_records_of_another_set_are_noticed_when_they_are_read(tmp_path):
    png_set(tmp_path / 'out')
    rng = np.random.default_rng(4)
    other = [encode_png(rng.integers(0, 256, (20, 30, 1), np.uint8)) for _ in range(40)]
    write(tmp_path / 'other', {'train': other})
    for path in (tmp_path / 'other').glob('*.array_record*'):
        path.replace(tmp_path / 'out' / path.name)
    images = load_prepared(tmp_path / 'out', lazy=True).splits['train'].images
    with pytest.raises(UserError, match='out is damaged .its records are not those of the index.'):
        images[7]
    with pytest.raises(UserError, match='its records are not those of the index'):
        load_prepared(tmp_path / 'out')


def test_changed_pixels_are_noticed_where_all_are_read(tmp_path, monkeypatch):
    png_set(tmp_path / 'out')
    changed = lambda data, **how: decode_stored(data, **how) ^ 1
    monkeypatch.setattr(stored, 'decode_stored', changed)
    with pytest.raises(UserError, match='out is damaged .the pixels of train é [0-9]+ have changed.'):
        load_prepared(tmp_path / 'out')


def test_pictures_of_many_sizes_need_one_to_be_set(tmp_path):
    rng = np.random.default_rng(0)
    encoded = [jpeg(smooth(rng, 20 + 3 * n, 50 - n, 3)) for n in range(6)]
    write(tmp_path / 'out', {'train': encoded})
    with pytest.raises(UserError, match='out differ in size; set config.data.size .* --config.data.size=64'):
        load_prepared(tmp_path / 'out')
    lazily = load_prepared(tmp_path / 'out', lazy=True).splits['train'].images
    assert len(lazily) == 6
    with pytest.raises(UserError, match='differ in size'):
        lazily[0]
    images = load_prepared(tmp_path / 'out', size=16).splits['train'].images
    assert images.shape == (6, 16, 16, 3)
    np.testing.assert_array_equal(lazily.fit(16, 0)[2], images[2])


# --- pictures ---

KEYS = (
    0, -1, 49, slice(None), slice(3, 11, 2), slice(40, 99), slice(5, 5), slice(None, None, -7),
    np.array([4, 4, 49, -50, 0]), [7, 3], np.arange(50) % 3 == 0, np.zeros(50, bool), np.array([[1, 2], [30, 4]]),
)  # fmt: skip


@pytest.mark.parametrize('key', KEYS, ids=repr)
def test_indexing_is_numpys(colours, key):
    _, pictures, images = colours
    found = images[key]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pictures[key])


@pytest.mark.parametrize('key', [50, -51, [0, 50], np.zeros(49, bool), 1.5])
def test_what_is_not_there_is_an_index_error_as_numpys(colours, key):
    with pytest.raises(IndexError):
        colours[2][key]


def test_a_view_of_a_view_reads_nothing_and_then_the_right_ones(colours, monkeypatch):
    _, pictures, images = colours
    reads = []
    read = type(images.records).read
    monkeypatch.setattr(type(images.records), 'read', lambda self, rows: reads.append(len(rows)) or read(self, rows))
    keep = np.arange(50) % 2 == 1
    view = images.select(keep).select(np.array([20, 0, 3])).fit(0, 1)
    assert (view.shape, len(view), reads) == ((3, 60, 60, 1), 3, [])
    np.testing.assert_array_equal(view[:], fit_images(pictures[keep][[20, 0, 3]], 0, 1))
    assert reads == [3]


def test_splits_join_without_reading(colours):
    folder, pictures, images = colours
    other = load_prepared(folder, lazy=True).splits['validation'].images
    whole = images.select(np.arange(10, 50)).join(other.select(np.array([2, 0])), images)
    assert whole.shape == (92, 60, 60, 3)
    np.testing.assert_array_equal(whole[[0, 39, 40, 41, 42, 91]], pictures[[10, 49, 2, 0, 0, 49]])
    with pytest.raises(ValueError, match='do not join'):
        images.join(images.fit(20, 0))


@pytest.mark.parametrize('channels', [0, 1, 3])
@pytest.mark.parametrize('size', [0, 60, 100])
def test_larger_or_as_stored_is_what_fit_images_makes_of_it(colours, size, channels):
    _, pictures, images = colours
    expected = fit_images(pictures, size, channels)
    np.testing.assert_array_equal(images.fit(size, channels)[:], expected)
    np.testing.assert_array_equal(images.fit(size, channels).load(), expected)


@pytest.mark.parametrize('size', [7, 15, 30, 31, 59])
def test_smaller_jpegs_are_decoded_smaller_and_stay_close(colours, size):
    _, pictures, images = colours
    found = images.fit(size, 3)
    assert found.shape == (50, size, size, 3)
    np.testing.assert_array_equal(found[:], found.load())
    np.testing.assert_array_equal(found[4], found[:][4])
    difference = np.abs(found[:].astype(int) - fit_images(pictures, size, 3))
    scale = next(scale for scale in (8, 4, 2, 1) if 60 // scale >= size)
    assert difference.mean() < (6 if scale == 8 else 1.5)  # 17 if the last block's filling counted as picture
    if scale == 1:
        assert difference.max() == 0


def test_smaller_pngs_are_exactly_what_fit_images_makes_of_them(tmp_path):
    data = png_set(tmp_path / 'out', shape=(33, 33, 3))
    expected = fit_images(np.stack(data.splits['train'].images), 16, 1)
    np.testing.assert_array_equal(load_prepared(tmp_path / 'out', 16, 1).splits['train'].images, expected)


def test_images_survive_pickling_and_another_process(colours):
    _, pictures, images = colours
    view = images.select(np.arange(5, 25))
    view[0]  # so that files are open
    again = pickle.loads(pickle.dumps(view))
    np.testing.assert_array_equal(again[3:6], pictures[8:11])
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(read_at, (view, [7, 0])), pictures[[12, 5]])


def read_at(images, key):
    return images[key]


def test_what_is_no_number_of_channels_is_refused(colours):
    for images in (colours[1], colours[2]):
        fit = images.fit if isinstance(images, StoredImages) else lambda *how, images=images: fit_images(images, *how)
        with pytest.raises(UserError, match='channels is 2'):
            fit(0, 2)


def test_the_content_hash_names_a_set_of_pictures_and_no_order(colours):
    images = colours[2]
    assert images.content_hash() == images.select(np.arange(50)[::-1]).content_hash()
    assert images.content_hash() != images.select(np.arange(49)).content_hash()


# --- fit_images ---


def random_images(n=3, side=12, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, channels)).astype(np.uint8)


def test_grey_is_pils_grey_and_rgb_repeats_grey():
    colour = random_images(2, 9, 3)
    grey = fit_images(colour, 0, 1)
    pil = np.stack([np.asarray(Image.fromarray(image).convert('L')) for image in colour])
    assert np.abs(grey[..., 0].astype(int) - pil).max() <= 1
    assert grey.dtype == np.uint8
    np.testing.assert_array_equal(fit_images(grey, 0, 3), np.repeat(grey, 3, -1))
    np.testing.assert_array_equal(fit_images(np.full((1, 2, 2, 3), 255, np.uint8), 0, 1), 255)


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('size', [7, 31])
def test_resizing_is_pils_lanczos(size, channels):
    images = random_images(2, 12, channels)
    mode = (lambda image: image[..., 0]) if channels == 1 else (lambda image: image)
    expected = [Image.fromarray(mode(image)).resize((size, size), Image.Resampling.LANCZOS) for image in images]
    expected = np.stack([np.asarray(image).reshape(size, size, channels) for image in expected])
    np.testing.assert_array_equal(fit_images(images, size, channels), expected)


def test_one_image_alone_is_fitted_as_among_many():
    images = random_images(20, 40, 3)
    together = fit_images(images, 24, 1)
    np.testing.assert_array_equal(np.concatenate([fit_images(image[None], 24, 1) for image in images]), together)


def test_zero_keeps_side_and_channels():
    images = random_images(2, 9, 3)
    np.testing.assert_array_equal(fit_images(images, 0, 0), images)


def test_oblong_images_become_square(tmp_path):
    assert fit_images(np.zeros((1, 20, 10, 1), np.uint8), 12, 1).shape == (1, 12, 12, 1)
    data = png_set(tmp_path / 'out')
    pictures = np.stack(data.splits['train'].images)
    images = load_prepared(tmp_path / 'out', lazy=True).splits['train'].images.fit(0, 0)
    np.testing.assert_array_equal(images[:], fit_images(pictures, 0, 0))
