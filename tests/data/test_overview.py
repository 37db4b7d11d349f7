"""The overview shows every class and split whatever their number, sizes and names, and the pairs in doubt."""

import numpy as np
import pytest
from PIL import Image

from fer_jax.data.dataset import Dataset, Split
from fer_jax.data.duplicates import Copy
from fer_jax.data.overview import _at_most, _fitted, draw_overview


def drawn(path, classes, counts, colours, groups=()):
    """`counts` by split; every picture has one colour, given by its class, and a size of its own."""
    splits = {}
    for name, count in counts.items():
        labels = np.arange(count, dtype=np.int32) % len(classes)
        images = [np.full((20 + 9 * index % 50, 30, 3), colours[label], np.uint8) for index, label in enumerate(labels)]
        hashes = np.array([str(index) for index in range(count)])
        splits[name] = Split(images, labels, hashes, hashes)
    draw_overview(Dataset('faces', classes, splits, {'source': {'name': 'a $b$'}}), path, *groups)
    with Image.open(path) as picture:
        return np.asarray(picture.convert('RGB'))


def holds(pixels, colour):
    return (abs(pixels.astype(int) - colour).max(-1) <= 2).sum()


@pytest.mark.parametrize('classes', (2, 22))
def test_every_class_of_every_split_is_shown(classes, tmp_path):
    names = ('高兴', 'a class of $many$ words', *(f'class {index}' for index in range(2, classes)))
    colours = [(250, 10 * index, 255 - 10 * index) for index in range(classes)]
    counts = {'train': 5 * classes, 'test': classes}
    pixels = drawn(tmp_path / 'a.png', names, counts, colours)
    assert pixels.shape[1] == 1920
    for colour in colours:
        columns = np.flatnonzero((abs(pixels.astype(int) - colour).max(-1) <= 2).any(0))
        assert columns.min() < 960 < columns.max()  # left: train, right: test


def test_pairs_are_drawn_below_and_only_if_there_are_any(tmp_path):
    colours = [(250, 0, 0), (0, 250, 0)]
    without = drawn(tmp_path / 'a.png', ('anger', 'fear'), {'train': 4}, colours)
    same = [Copy('train', '0', 0, 0), Copy('train', '2', 0, 2)]
    conflicting = [Copy('train', '0', 0, 0), Copy('train', '2', 0, 2), Copy('train', '3', 1, 3)]
    pixels = drawn(tmp_path / 'b.png', ('anger', 'fear'), {'train': 4}, colours, ([same], []))
    assert pixels.shape == without.shape  # identical under one label: nothing to look at
    pixels = drawn(tmp_path / 'c.png', ('anger', 'fear'), {'train': 4}, colours, ([same, conflicting], [same]))
    extra = pixels[without.shape[0] :]
    assert holds(extra, colours[0]) > holds(extra, colours[1]) > 1000


def test_of_very_many_classes_the_first_are_shown(tmp_path):
    names = tuple(f'class {index}' for index in range(1000))
    pixels = drawn(tmp_path / 'a.png', names, {'train': 1000}, [(index % 60, 9, 250) for index in range(1000)])
    assert pixels.shape[0] < 6000
    assert holds(pixels, (59, 9, 250)) > 100


def test_what_is_larger_than_its_cell_looks_as_if_it_had_been_fitted_at_once():
    image = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    np.testing.assert_array_equal(_fitted(_at_most(image, 96), 96), _fitted(image, 96))
    assert _at_most(image, 300) is image
