"""Every form of FER2013 is read pixel by pixel; what holds none is refused."""

import collections

import numpy as np
import pytest

from fer_jax.data.readers import fer2013
from fer_jax.errors import UserError
from tests.data.readers.fer2013_forms import (
    EMOTIONS,
    FORMS,
    IMAGES,
    SPLITS,
    USAGES,
    png_of,
    read,
    rows_of_all,
    text_of,
    write_folders,
    write_icml,
    write_table,
    write_zip,
    written,
    zip_of_table,
)


@pytest.mark.parametrize('form', FORMS)
def test_every_form_gives_the_same_faces(form, tmp_path):
    examples, rejects, source = read(FORMS[form](tmp_path))
    assert rejects == []
    assert source.total == 21
    found = {(row.split, row.emotion): row for row in examples}
    assert len(found) == 21
    for index, image in enumerate(IMAGES):
        usage = index // 7
        row = found[SPLITS[usage], EMOTIONS[index % 7]]
        np.testing.assert_array_equal(row.image, image[..., None])
        assert row.image.dtype == np.uint8
        assert row.id == f'{USAGES[usage]}_{index:05d}'


def test_class_names_are_the_seven_in_canonical_order():
    assert fer2013.CLASS_NAMES == ('anger', 'disgust', 'fear', 'happiness', 'neutral', 'sadness', 'surprise')


def test_the_training_part_can_be_cut_anew(tmp_path):
    path = write_table(
        tmp_path / 'fer2013.csv', [(index % 7, text_of(IMAGES[index % 21]), 'Training') for index in range(70)]
    )
    examples, rejects, source = read(path, split=(0.8, 0.1, 0.1), seed=1)
    assert rejects == [] and 'cut 80/10/10 %' in source.form
    found = collections.Counter((row.split, row.emotion) for row in examples)
    assert found == {(split, name): {'train': 8}.get(split, 1) for split in SPLITS for name in EMOTIONS}


@pytest.mark.parametrize('options', ({'classes': 7}, {'votes': 'fer2013new.csv'}))
def test_options_of_other_sets_are_refused(options, tmp_path):
    with pytest.raises(UserError, match=f'FER2013 has no option {next(iter(options))}: '):
        read(write_icml(tmp_path / 'icml_face_data.csv'), **options)


def truncated_zip(folder):
    path = write_zip(folder / 'a.zip', write_folders(folder / 'in'))
    path.write_bytes(path.read_bytes()[:-500])
    return path


def zip_with_damaged_table(folder):
    path = zip_of_table(folder)
    data = bytearray(path.read_bytes())
    data[5000:5010] = b'0123456789'
    path.write_bytes(data)
    return path


USELESS = {
    'missing': (lambda p: p / 'nowhere.csv', 'nowhere.csv does not exist'),
    'empty table': (lambda p: written(p / 'fer2013.csv', b''), 'fer2013.csv is empty'),
    'empty folder': (lambda p: p, 'is empty'),
    'truncated zip': (truncated_zip, 'is not a whole zip file'),
    'no zip': (lambda p: written(p / 'a.zip', b'hello'), 'is not a whole zip file'),
    'empty zip': (lambda p: write_zip(p / 'a.zip', p), 'is empty'),
    'tar': (lambda p: written(p / 'fer2013.tar.gz', b'\x1f\x8b1234'), 'unpack it'),
    'missing column': (
        lambda p: write_table(p / 'fer2013.csv', [row[:2] for row in rows_of_all()], 'emotion, pixels'),
        'fer2013.csv lacks the column usage; found: emotion, pixels',
    ),
    'a picture': (lambda p: written(p / 'a.jpg', png_of(IMAGES[0])), 'a.jpg lacks the column'),
    'other things': (lambda p: written(p / 'notes' / 'a.md', b'hello').parent, 'holds no FER2013'),
    'two tables': (
        lambda p: write_table(write_icml(p / 'a.csv').parent / 'b.csv', rows_of_all()).parent,
        'more than one table (a.csv, b.csv)',
    ),
    'two zips': (
        lambda p: written(written(p / 'a.zip', b'PK').parent / 'b.zip', b'PK').parent,
        'more than one zip (a.zip, b.zip)',
    ),
    'damaged table in a zip': (zip_with_damaged_table, 'fer2013.csv cannot be read'),
    'a device': (lambda p: '/dev/null', 'neither a file nor a directory'),
}


@pytest.mark.parametrize('case', USELESS)
def test_a_useless_source_is_one_clear_line(case, tmp_path):
    make, message = USELESS[case]
    path = make(tmp_path)
    with pytest.raises(UserError) as raised:
        read(path)
    assert message in str(raised.value)
    assert '\n' not in str(raised.value)
