"""Which images become which, and that what is made is made once, whole, and the same after a kill."""

import csv
import json
import os

import numpy as np
import pytest
from PIL import Image

from fer_jax.data.derived import (
    COLUMNS,
    Way,
    count_labels,
    picture_path,
    plan_copies,
    plan_translations,
    shuffled,
    spread,
    write_csv,
)
from fer_jax.data.deriving import derive_images, write_chunk
from fer_jax.errors import UserError

WAYS = [Way('anger', 'fear', 'runs/x', 7), Way('happiness', 'fear', 'runs/y', 9)]


def test_images_are_spread_evenly_and_what_one_lacks_others_give():
    assert spread(10, [9, 9, 9]) == [4, 3, 3]
    assert spread(10, [2, 9, 9]) == [2, 4, 4]
    assert spread(11, [2, 9, 0, 9]) == [2, 5, 0, 4]
    assert spread(20, [2, 9, 9]) == [2, 9, 9]
    assert spread(1, [5, 5]) == [1, 0]
    assert spread(0, [5, 5]) == [0, 0]


def test_a_plan_takes_training_images_of_the_source_each_once_and_less_is_the_beginning_of_more(dataset):
    train, names = dataset.splits['train'], dataset.class_names
    few, more = (plan_translations(train, names, WAYS, count, 3) for count in (7, 20))
    assert [len(part.rows) for part in few] == [4, 3]
    for small, large, way in zip(few, more, WAYS, strict=True):
        assert (large.name, large.label, large.run) == (f'{way.source}_to_fear', 'fear', way.run)
        assert set(large.steps) == {way.step}
        assert set(train.labels[large.rows]) == {names.index(way.source)}
        assert len(set(large.rows)) == len(large.rows)
        np.testing.assert_array_equal(small.rows, large.rows[: len(small.rows)])
    other = plan_translations(train, names, WAYS, 20, 4)
    assert [part.rows.tolist() for part in other] != [part.rows.tolist() for part in more]


def test_an_image_left_out_moves_no_other(dataset):
    train = dataset.splits['train']
    order = shuffled(train, 0, 0)
    left = np.arange(len(train)) != order[2]
    fewer = train.select(left)
    assert fewer.ids[shuffled(fewer, 0, 0)].tolist() == np.delete(train.ids[order], 2).tolist()


def test_more_than_there_are_is_one_line(dataset):
    there = (np.isin(dataset.splits['train'].labels, (0, 2))).sum()
    plan_translations(dataset.splits['train'], dataset.class_names, WAYS, there, 0)
    with pytest.raises(UserError, match=f'there are {there} images to translate .anger to fear 14, happiness to fear'):
        plan_translations(dataset.splits['train'], dataset.class_names, WAYS, there + 1, 0)


def test_copies_repeat_an_image_only_after_all_of_its_class(dataset):
    train, names = dataset.splits['train'], dataset.class_names
    (part,) = plan_copies(train, names, {'fear': 30}, 0)
    count = (train.labels == 1).sum()
    assert set(train.labels[part.rows]) == {1} and part.run == ''
    assert len(set(part.rows[:count])) == count
    np.testing.assert_array_equal(part.steps, np.arange(30) // count)
    with pytest.raises(UserError, match='copies of disgust are wanted, and the training split has no image of it'):
        plan_copies(train, names, {'disgust': 1}, 0)


def test_the_csv_says_what_became_of_what_and_is_counted_again(dataset, tmp_path):
    train = dataset.splits['train']
    parts = plan_translations(train, dataset.class_names, WAYS, 5, 0)
    digests = {part.name: [64 * f'{number:x}' for number in range(7, 7 + len(part.rows))] for part in parts}
    write_csv(tmp_path / 't.csv', parts, train.ids, digests)
    with open(tmp_path / 't.csv', newline='') as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == COLUMNS and len(rows) == 5
    assert rows[3][:2] == ['images/happiness_to_fear/000000.png', 'fear']
    assert rows[3][2:] == [train.ids[parts[1].rows[0]], 'happiness', 'runs/y', '9', 16 * '7']
    assert count_labels(tmp_path / 't.csv') == {'fear': 5}


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (None, 'no file .*; `translate` writes one'),
        ('id,label\n', 'not a CSV that `translate` wrote: those begin with path,label,source'),
        (','.join(COLUMNS) + '\n', 'lists no images'),
    ],
)
def test_other_csvs_are_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / 'x.csv').write_text(text)
    with pytest.raises(UserError, match=message):
        count_labels(tmp_path / 'x.csv')


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr('fer_jax.data.deriving._TOGETHER', 4)
    monkeypatch.setattr('fer_jax.data.deriving.usable_cores', lambda: 1)


def test_images_are_made_once_and_anew_where_a_file_is_not_what_was_written(dataset, tmp_path, small_chunks):
    train = dataset.splits['train']
    parts = plan_translations(train, dataset.class_names, WAYS, 11, 0)
    made = []

    def invert(part, start, images):
        made.append((part.name, start, len(images)))
        return 255 - images

    digests = derive_images(parts, train.images, invert, tmp_path, '')
    assert made == [('anger_to_fear', 0, 4), ('anger_to_fear', 4, 2), ('happiness_to_fear', 0, 4)] + [
        ('happiness_to_fear', 4, 1)
    ]
    assert [len(found) for found in digests.values()] == [6, 5]
    for part in parts:
        for number, row in enumerate(part.rows):
            picture = np.asarray(Image.open(tmp_path / picture_path(part.name, number)))
            np.testing.assert_array_equal(picture, 255 - train.images[row, ..., 0])
    made.clear()
    assert derive_images(parts, train.images, invert, tmp_path, '') == digests and made == []
    (tmp_path / picture_path('anger_to_fear', 5)).write_bytes(b'')
    os.remove(tmp_path / picture_path('happiness_to_fear', 1))
    (tmp_path / 'notes' / 'happiness_to_fear_000004.json').write_text('[')
    assert derive_images(parts, train.images, invert, tmp_path, '') == digests
    assert made == [('anger_to_fear', 4, 2), ('happiness_to_fear', 0, 4), ('happiness_to_fear', 4, 1)]


def test_a_chunk_is_noted_only_when_all_of_it_is_written(tmp_path, monkeypatch):
    images = np.zeros((3, 8, 8, 3), np.uint8)
    replace = os.replace

    def full(source, target):
        if str(target).endswith('2.png'):
            raise OSError('full')
        replace(source, target)

    monkeypatch.setattr('fer_jax.data.deriving.os.replace', full)
    with pytest.raises(OSError, match='full'):
        write_chunk(tmp_path, 'a', 0, images)
    assert not (tmp_path / 'notes').exists() and len(list((tmp_path / 'images' / 'a').glob('*.png'))) == 2
    monkeypatch.setattr('fer_jax.data.deriving.os.replace', replace)
    digests = write_chunk(tmp_path, 'a', 0, images)
    assert json.loads((tmp_path / 'notes' / 'a_000000.json').read_text()) == digests
    with Image.open(tmp_path / picture_path('a', 2)) as picture:
        assert picture.mode == 'RGB'
