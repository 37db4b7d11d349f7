"""Any folder of classes: emotions by any spelling, other classes by their own names, splits found or cut."""

import collections
import shutil
from pathlib import Path

import pytest

from fer_jax.data.dataset import EMOTIONS
from fer_jax.data.readers import cuts, folder
from fer_jax.errors import UserError
from tests import layouts


@pytest.mark.parametrize('zipped', (False, True))
@pytest.mark.parametrize('top', ('', 'My faces é/'))
def test_splits_above_classes(zipped, top, tmp_path):
    expected = layouts.folders(tmp_path / 'in' / top, faults=not top)
    path = layouts.write_zip(tmp_path / 'a.zip', tmp_path / 'in') if zipped else tmp_path / 'in'
    source = layouts.compare(folder.open_source, expected, path)
    assert source.form == f'folders SPLIT/CLASS/picture in {path.name}'


def test_splits_below_classes(tmp_path):
    for split in ('Training', 'valid', 'TEST'):
        for name in ('happy', 'sad'):
            layouts.write(tmp_path / name / split / '1.png', layouts.encode(layouts.face('anger', 0)))
    candidates, rejects, source = layouts.read(folder.open_source, tmp_path)
    assert rejects == []
    assert source.form == f'folders CLASS/SPLIT/picture in {tmp_path.name}'
    assert {(row.id, row.split, row.emotion) for row in candidates} == {
        (f'{name}/{word}/1.png', split, {'happy': 'happiness', 'sad': 'sadness'}[name])
        for word, split in (('Training', 'train'), ('valid', 'validation'), ('TEST', 'test'))
        for name in ('happy', 'sad')
    }


def test_classes_alone_are_cut_eighty_ten_ten_and_say_so(tmp_path):
    expected = layouts.folders(tmp_path, per_class=10, splits=('',), faults=True)
    candidates, rejects, source = layouts.read(folder.open_source, tmp_path)
    assert {row.id: row.emotion for row in candidates} == {name: row.emotion for name, row in expected.rows.items()}
    assert {reject.location: reject.reason for reject in rejects} == expected.rejects
    counts = collections.Counter((row.emotion, row.split) for row in candidates)
    assert counts['anger', 'train'] == 10  # of twelve: two more are broken
    for emotion in EMOTIONS[1:]:
        assert [counts[emotion, split] for split in ('train', 'validation', 'test')] == [8, 1, 1]
    assert source.form.endswith('all of it cut 80/10/10 % into train/validation/test (stratified, seed 0)')


def test_a_cut_depends_on_seed_and_ids_alone(tmp_path):
    layouts.folders(tmp_path / 'a' / 'wrapped', per_class=10, splits=('',))
    (tmp_path / 'b').mkdir()
    for name in sorted((tmp_path / 'a' / 'wrapped').iterdir(), reverse=True):
        name.rename(tmp_path / 'b' / name.name) if name.name in ('sad', 'fear') else None
    layouts.folders(tmp_path / 'b', per_class=10, splits=('',))

    def splits(path, seed):
        return {row.id: row.split for row in layouts.read(folder.open_source, path, seed=seed)[0]}

    layouts.folders(tmp_path / 'a' / 'wrapped', per_class=10, splits=('',))
    assert splits(tmp_path / 'a', 0) == splits(tmp_path / 'b', 0)
    assert splits(tmp_path / 'b', 0) != splits(tmp_path / 'b', 1)


def test_classes_that_are_no_emotions_keep_their_names_after_the_emotions(tmp_path):
    names = {'anger': 'zebra', 'fear': 'Äpfel', 'happiness': 'SURPRISED', 'sadness': 'afraid', 'neutral': 'bored'}
    layouts.folders(tmp_path, names=names)
    candidates, _, source = layouts.read(folder.open_source, tmp_path)
    assert source.class_names == ('fear', 'surprise', 'bored', 'zebra', 'Äpfel')
    assert {row.emotion for row in candidates} == set(source.class_names)


def test_two_spellings_of_an_emotion_are_one_class_and_accents_may_be_composed(tmp_path):
    for number, name in enumerate(('angry', 'Anger', 'caf\u00e9', 'cafe\u0301')):
        layouts.write(tmp_path / 'train' / name / f'{number}.png', 'x')
    _, _, source = layouts.read(folder.open_source, tmp_path)
    assert source.class_names == ('anger', 'caf\u00e9')


def test_without_a_validation_part_the_form_says_how_to_get_one_and_the_cut_keeps_test(tmp_path):
    layouts.folders(tmp_path, per_class=10, splits=('train', 'test'))
    _, _, source = layouts.read(folder.open_source, tmp_path)
    assert source.form.endswith('; it has no validation part: --split=90/10/0 cuts one from train')
    candidates, rejects, _ = layouts.read(folder.open_source, tmp_path, split=(0.9, 0.1, 0))
    assert rejects == []
    assert collections.Counter(row.split for row in candidates) == {'train': 72, 'validation': 8, 'test': 80}


def test_deeper_folders_belong_to_their_class(tmp_path):
    for name in ('cat/1/a.png', 'cat/2/a.png', 'dog/a.png'):
        layouts.write(tmp_path / name, 'x')
    candidates, _, _ = layouts.read(folder.open_source, tmp_path)
    assert {(row.id, row.emotion) for row in candidates} == {
        ('cat/1/a.png', 'cat'),
        ('cat/2/a.png', 'cat'),
        ('dog/a.png', 'dog'),
    }


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_a_name_twice_in_a_zip_is_rejected_once(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        for number, name in enumerate(('cat/1.png', 'cat/1.png', 'dog/1.png')):
            archive.writestr(name, layouts.encode(layouts.face('anger', number)))
    candidates, rejects, _ = layouts.read(folder.open_source, tmp_path / 'a.zip')
    assert [(reject.location, reject.reason) for reject in rejects] == [
        ('cat/1.png', 'the same name as another file of the zip')
    ]
    assert (layouts.decode_candidate(candidates[0]) == layouts.face('anger', 0)).all()


USELESS = {
    'one class': (lambda p: layouts.write(p / 'train' / 'cat' / '1.png', 'x'), {}, 'found: only cat'),
    'no folders': (lambda p: layouts.write(p / '1.png', 'x'), {}, 'found: none'),
    'no pictures': (lambda p: layouts.write(p / 'cat' / '1.txt', 'x'), {}, 'found: none'),
    'missing': (lambda p: p.rmdir(), {}, 'does not exist'),
    'two zips': (lambda p: [layouts.write(p / f'{n}.zip', 'x') for n in 'ab'], {}, 'more than one zip (a.zip, b.zip)'),
    'no zip': (lambda p: layouts.write(p / 'a.zip', 'x'), {}, 'is not a whole zip file'),
    'classes': (layouts.folders, {'classes': 7}, 'a folder of classes has no option classes'),
    'votes': (layouts.folders, {'votes': 'x'}, 'it is for --dataset=ferplus'),
    'split of more than all': (
        layouts.folders,
        {'split': (0.8, 0.1, 0.2)},
        'the split 80/10/20 is not three shares',
    ),
    'split without training': (layouts.folders, {'split': (0.0, 0.5, 0.5)}, 'the split 0/50/50 is not three shares'),
}


@pytest.mark.parametrize('case', USELESS)
def test_a_useless_source_is_one_clear_line(case, tmp_path):
    make, options, message = USELESS[case]
    make(tmp_path)
    with pytest.raises(UserError) as raised:
        layouts.read(folder.open_source, tmp_path, **options)
    assert message in str(raised.value)
    assert '\n' not in str(raised.value)


def test_a_cut_by_subject_keeps_people_together_and_classes_in_proportion():
    examples = [
        (f'{person}-{emotion}-{number}', emotion, f'p{person}')
        for person in range(50)
        for emotion in ('a', 'b')
        for number in range(2 + person % 3)
    ]
    split_of = cuts.cut(examples, (0.8, 0.1, 0.1), 0)
    assert split_of == cuts.cut(reversed(examples), (0.8, 0.1, 0.1), 0)
    of_person = collections.defaultdict(set)
    for identity, _, subject in examples:
        of_person[subject].add(split_of[identity])
    assert {len(splits) for splits in of_person.values()} == {1}
    counts = collections.Counter((split_of[identity], emotion) for identity, emotion, _ in examples)
    total = len(examples) / 2
    for emotion in ('a', 'b'):
        for split, share in (('train', 0.8), ('validation', 0.1), ('test', 0.1)):
            assert abs(counts[split, emotion] - share * total) <= 2


@pytest.mark.parametrize('n', (1, 2, 3, 7, 10, 101))
def test_a_cut_is_to_the_nearest_whole_number(n):
    split_of = cuts.cut([(str(number), 'a', '') for number in range(n)], (0.8, 0.1, 0.1), 5)
    assert len(split_of) == n
    counts = collections.Counter(split_of.values())
    assert counts['train'] == round(0.8 * n)
    assert counts['train'] + counts['validation'] == round(round(0.9 * n, 6))


EMPTY = {
    'flat': (['', 'cat/1.png', 'dog/1.png', 'empty/', 'words/notes.txt', '.hidden/'], 'empty, words'),
    'with splits': (
        ['top/train/cat/1.png', 'top/train/dog/1.png', 'top/val/dog/', 'other/x/', 'top/misc/x/'],
        'val/dog',
    ),
    'none': (['cat/1.png', 'dog/deeper/1.png'], ''),
    'many': (['cat/1.png', 'dog/1.png', *(f'e{number}/' for number in range(7))], 'e0, e1, e2, e3, e4 and 2 more'),
}


@pytest.mark.parametrize('zipped', (False, True))
@pytest.mark.parametrize('case', EMPTY)
def test_class_folders_without_a_picture_are_named(case, zipped, tmp_path):
    names, expected = EMPTY[case]
    root = tmp_path / 'in'
    for name in names:
        if name.endswith('/'):
            (root / name).mkdir(parents=True)
        else:
            layouts.write(root / (name or 'x.txt'), layouts.encode(layouts.face('anger', 0)))
    if zipped:
        root = Path(shutil.make_archive(tmp_path / 'a', 'zip', root))
    _, _, source = layouts.read(folder.open_source, root)
    assert source.remarks == ((f'there is no picture in {expected}',) if expected else ())


def test_one_class_with_pictures_and_one_without_is_said(tmp_path):
    layouts.write(tmp_path / 'cat' / '1.png', 'x')
    (tmp_path / 'dog').mkdir()
    with pytest.raises(UserError, match='found: only cat; there is no picture in dog'):
        layouts.read(folder.open_source, tmp_path)
