"""AffectNet in its three forms, from directories and zips, with every fault rejected for its reason."""

import io

import numpy as np
import pytest

from fer_jax.data.readers import affectnet
from fer_jax.data.readers.npy import parse_npy, parse_number
from fer_jax.errors import UserError
from tests import layouts

FIVE = ('anger', 'happiness', 'neutral', 'sadness', 'surprise')


@pytest.mark.parametrize('zipped', (False, True))
def test_annotated_arrays(zipped, tmp_path):
    expected = layouts.affectnet_arrays(tmp_path / 'Affect Net é', faults=True)
    path = layouts.write_zip(tmp_path / 'a.zip', expected.path, 'top/') if zipped else None
    if zipped:
        expected.rejects = {
            f'top/{location}': reason.replace('train_set', 'top/train_set')
            for location, reason in expected.rejects.items()
        }
        expected.skipped = {f'top/{name}' for name in expected.skipped}
    source = layouts.compare(affectnet.open_source, expected, path)
    name = 'a.zip' if zipped else 'Affect Net é'
    assert source.form == f'images and annotations (exp, val, aro, lnd) of train and validation in {name}'
    assert not (expected.path / 'trapped').exists()


def test_a_part_given_alone_is_that_part(tmp_path):
    layouts.affectnet_arrays(tmp_path, per_class=1)
    for name, split in (('val_set', 'validation'), ('train_set', 'train')):
        candidates, _, _ = layouts.read(affectnet.open_source, tmp_path / name)
        assert [candidate.split for candidate in candidates] == [split] * 8


def test_without_val_aro_and_lnd_there_are_no_such_numbers(tmp_path):
    layouts.affectnet_arrays(tmp_path, per_class=1)
    for file in tmp_path.rglob('*.npy'):
        if not file.name.endswith('_exp.npy'):
            file.unlink()
    candidates, _, source = layouts.read(affectnet.open_source, tmp_path)
    assert {len(candidate.numbers) for candidate in candidates} == {0}
    assert '(exp)' in source.form


@pytest.mark.parametrize('pictures', ('', 'Manually_Annotated_Images/', 'a/b c/Manually_Annotated_Images/'))
def test_tables_find_their_pictures_wherever_they_lie(pictures, tmp_path):
    expected = layouts.affectnet_tables(tmp_path, faults=True, pictures=pictures)
    source = layouts.compare(affectnet.open_source, expected)
    assert f'training.csv (pictures in {pictures or "./"})' in source.form
    assert 'automatically_annotated.csv is not read' in source.form


def test_the_box_of_a_table_holds_the_face(tmp_path):
    layouts.affectnet_tables(tmp_path)
    candidates, _, _ = layouts.read(affectnet.open_source, tmp_path)
    for candidate in candidates:
        left, top, width, height = map(int, candidate.box)
        cut = layouts.decode_candidate(candidate)[top : top + height, left : left + width]
        number = int(candidate.id.split()[-1].removesuffix('.png')) // 8 + 2 * (candidate.split == 'validation')
        np.testing.assert_array_equal(cut, layouts.face(candidate.emotion, number))


def test_tables_in_a_zip_and_a_table_given_alone(tmp_path):
    expected = layouts.affectnet_tables(tmp_path / 'in')
    source = layouts.compare(affectnet.open_source, expected, layouts.write_zip(tmp_path / 'a.zip', tmp_path / 'in'))
    assert source.total == len(expected.rows)
    (tmp_path / 'in' / 'training.csv').rename(tmp_path / 'in' / 'automatically_annotated.csv')
    candidates, _, _ = layouts.read(affectnet.open_source, tmp_path / 'in' / 'automatically_annotated.csv')
    assert {(candidate.id, candidate.split) for candidate in candidates} == {
        (identity, 'train') for identity, row in expected.rows.items() if row.split == 'train'
    }


@pytest.mark.parametrize('form', ('words', 'numbers'))
def test_folders_by_word_or_by_number(form, tmp_path):
    names = {emotion: str(label) for label, emotion in enumerate(layouts.AFFECTNET)} if form == 'numbers' else None
    expected = layouts.folders(tmp_path / 'in', splits=('train', 'val'), faults=True, names=names)
    for folder, reason in {
        'train/8': 'label 8 (none) is no emotion',
        'train/Uncertain': 'label 9 (uncertain) is no emotion',
        'val/no-face': 'label 10 (no face) is no emotion',
        'val/joy': "unknown emotion folder 'joy'",
    }.items():
        layouts.write(tmp_path / 'in' / folder / '1.png', layouts.encode(layouts.face('anger', 9)))
        expected.rejects[f'{folder}/1.png'] = reason
    source = layouts.compare(affectnet.open_source, expected)
    assert source.total == len(expected.rows) + len(expected.rejects)


WRITERS = (
    layouts.affectnet_arrays,
    layouts.affectnet_tables,
    lambda path: layouts.folders(path, splits=('train', 'val')),
)


@pytest.mark.parametrize('write', WRITERS)
@pytest.mark.parametrize(('classes', 'kept'), ((7, set(layouts.AFFECTNET) - {'contempt'}), (5, set(FIVE))))
def test_seven_and_five_classes_reject_the_others(write, classes, kept, tmp_path):
    expected = write(tmp_path)
    candidates, rejects, source = layouts.read(affectnet.open_source, tmp_path, classes=classes)
    assert set(source.class_names) == kept
    assert {candidate.id for candidate in candidates} == {
        identity for identity, row in expected.rows.items() if row.emotion in kept
    }
    assert {reject.reason for reject in rejects} == {
        f'{emotion} is not among the {classes} classes asked for' for emotion in set(layouts.AFFECTNET) - kept
    }
    assert all(emotion in source.form for emotion in kept)


@pytest.mark.parametrize('write', WRITERS)
def test_the_cut_of_seed_004_takes_a_tenth_of_each_class_and_leaves_val_out(write, tmp_path):
    expected = write(tmp_path)
    for number in range(2, 10):  # ten of each class, so that a tenth is whole
        write_more(tmp_path, number, expected)
    candidates, rejects, source = layouts.read(affectnet.open_source, tmp_path, split=(0.8, 0.1, 0.1), seed=3)
    counts = {}
    for candidate in candidates:
        counts[candidate.emotion, candidate.split] = counts.get((candidate.emotion, candidate.split), 0) + 1
    assert counts == {
        (emotion, split): n
        for emotion in layouts.AFFECTNET
        for split, n in (('train', 8), ('validation', 1), ('test', 1))
    }
    assert {reject.reason for reject in rejects} == {'left out: validation is cut from the training part'}
    assert len(rejects) == sum(row.split == 'validation' for row in expected.rows.values())
    assert (
        "80/10/10 % into train/validation/test (stratified, seed 3); the source's own validation left out"
        in source.form
    )


def write_more(root, number, expected):
    """Eight more training examples, one of each class, in the form that `root` has."""
    for label, emotion in enumerate(layouts.AFFECTNET):
        picture = layouts.encode(layouts.face(emotion, number))
        if (root / 'training.csv').exists():
            points = ';'.join(['1'] * 136)
            with (root / 'training.csv').open('a') as file:
                file.write(f'9/{label} {number}.png,0,0,48,48,{points},{label},0,0\n')
            layouts.write(root / 'Manually_Annotated_Images' / '9' / f'{label} {number}.png', picture)
        elif (root / 'train_set').exists():
            layouts.write(root / 'train_set' / 'images' / f'{number}{label}.jpg', picture)
            layouts.write(root / 'train_set' / 'annotations' / f'{number}{label}_exp.npy', layouts.npy(np.array(label)))
        else:
            folder = next(path.name for path in (root / 'train').iterdir() if path.name.lower()[:3] == emotion[:3])
            layouts.write(root / 'train' / folder / f'more {number}.png', picture)


def test_a_test_part_can_be_cut_while_val_stays(tmp_path):
    expected = layouts.affectnet_arrays(tmp_path, per_class=10)
    candidates, rejects, _ = layouts.read(affectnet.open_source, tmp_path, split=(0.9, 0, 0.1))
    assert rejects == []
    splits = [candidate.split for candidate in candidates]
    assert (splits.count('train'), splits.count('validation'), splits.count('test')) == (72, 80, 8)
    kept = {identity for identity, row in expected.rows.items() if row.split == 'validation'}
    assert {candidate.id for candidate in candidates if candidate.split == 'validation'} == kept


USELESS = {
    'nothing': (lambda p: layouts.write(p / 'notes.txt', 'x'), {}, 'holds no AffectNet'),
    'empty': (lambda p: None, {}, 'is empty'),
    'other folders': (lambda p: layouts.write(p / 'cats' / '1.png', 'x'), {}, 'holds no AffectNet'),
    'six classes': (layouts.affectnet_arrays, {'classes': 6}, 'AffectNet with 6 classes is not known; known: 8, 7'),
    'votes': (layouts.affectnet_arrays, {'votes': 'a'}, 'AffectNet has no option votes'),
    'bad split': (layouts.affectnet_arrays, {'split': (0.8, 0.1)}, 'the split 80/10 is not three shares'),
    'no training part': (
        lambda p: layouts.folders(p, splits=('val',)),
        {'split': (0.8, 0.1, 0.1)},
        'there is no training part to cut',
    ),
    'no pictures': (
        lambda p: layouts.write(p / 'training.csv', 'subDirectory_filePath,expression\n1/a.jpg,3\n'),
        {},
        "none of the pictures that training.csv names is there (the first: '1/a.jpg')",
    ),
    'two for training': (
        lambda p: [layouts.write(p / f'train{n}.csv', 'subDirectory_filePath,expression\n') for n in (1, 2)],
        {},
        'more than one table for train (train1.csv, train2.csv)',
    ),
    'pictures twice': (
        lambda p: (
            [layouts.write(p / name, layouts.encode(layouts.face('fear', 0))) for name in ('a/1/x.png', 'b/1/x.png')]
            + [layouts.write(p / 'training.csv', 'subDirectory_filePath,expression\n1/x.png,3\n')]
        ),
        {},
        'the pictures lie in two folders (a/ and b/)',
    ),
}


@pytest.mark.parametrize('case', USELESS)
def test_a_useless_source_is_one_clear_line(case, tmp_path):
    make, options, message = USELESS[case]
    make(tmp_path)
    with pytest.raises(UserError) as raised:
        layouts.read(affectnet.open_source, tmp_path, **options)
    assert message in str(raised.value)
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
    'array', [np.array(3), np.array('3'), np.array(b'3'), np.arange(136.0), np.asfortranarray(np.ones((68, 2), '>f4'))]
)
def test_npy_files_read_as_numpy_writes_them(array):
    found = parse_npy(layouts.npy(array))
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype


def test_npy_of_version_two_and_numbers_in_every_dress():
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.array([[2.5]]), (2, 0))
    assert parse_number(parse_npy(buffer.getvalue())) == 2.5
    assert [parse_number(np.array(value)) for value in ('3', ' 3 ', b'3', 3, 3.0, True)] == [3, 3, 3, 3, 3, 1]


@pytest.mark.parametrize('names', (('train/', 'val/'), ('a/', 'b/')))
def test_two_tables_may_have_pictures_of_equal_paths_in_folders_of_their_own(names, tmp_path):
    for folder, table, count in zip(names, ('training.csv', 'validation.csv'), (3, 2), strict=True):
        lines = ['subDirectory_filePath,expression']
        for number in range(count):
            lines.append(f'0/{number}.png,{number}')
            layouts.write(tmp_path / folder / f'0/{number}.png', layouts.encode(layouts.face('anger', number)))
        if names[0] == 'a/':  # nothing but a picture that the other lacks tells the folder
            lines.append(f'1/{folder[0]}.png,3')
            layouts.write(tmp_path / folder / f'1/{folder[0]}.png', layouts.encode(layouts.face('fear', 0)))
        layouts.write(tmp_path / table, '\n'.join(lines))
    candidates, rejects, source = layouts.read(affectnet.open_source, tmp_path)
    assert not rejects and source.total == len(candidates) == (5 if names[0] == 'train/' else 7)
    for split, folder in zip(('train', 'validation'), names, strict=True):
        own = [row for row in candidates if row.split == split]
        assert all(row.id.startswith(f'{split}/0/') or row.id.startswith(f'{split}/1/') for row in own)
        assert {row.picture.path.relative_to(tmp_path).parts[0] for row in own} == {folder[0:-1]}
