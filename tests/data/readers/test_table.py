"""Any table of path,label[,split][,subject]: columns, delimiters and folders as users have them."""

import collections
import zipfile

import pytest

from fer_jax.data.readers import table
from fer_jax.errors import UserError
from tests import layouts

HEADERS = {
    'path,label,split,subject': ',',
    'filename;Emotion;Usage;person': ';',
    'image\tclass\tpartition\tidentity': '\t',
    ' file_path , expression , fold , subject_id ': ',',
}


@pytest.mark.parametrize('header', HEADERS)
@pytest.mark.parametrize('given', ('directory', 'table', 'zip'))
def test_columns_by_any_name(header, given, tmp_path):
    root = tmp_path / 'in é'
    expected = layouts.table(root, faults=True, header=header, delimiter=HEADERS[header])
    path = {'directory': root, 'table': root / 'labels.csv'}.get(given) or layouts.write_zip(tmp_path / 'a.zip', root)
    source = layouts.compare(table.open_source, expected, path)
    assert source.form.startswith('the table labels.csv (pictures in ./)')


def test_bom_quotes_and_windows_lines_and_slashes(tmp_path):
    for number, name in enumerate(('a, b.png', 'c.png')):
        layouts.write(tmp_path / 'sub' / name, layouts.encode(layouts.face('anger', number)))
    text = '\ufeffpath,label,split\r\n"sub\\a, b.png",angry,train\r\n.\\sub\\c.png,"joy ""x""",test\r\n'
    layouts.write(tmp_path / 'labels.csv', text)
    candidates, rejects, source = layouts.read(table.open_source, tmp_path)
    assert rejects == []
    assert source.class_names == ('anger', 'joy "x"')
    assert [(row.id, row.emotion, row.split) for row in candidates] == [
        ('sub/a, b.png', 'anger', 'train'),
        ('sub/c.png', 'joy "x"', 'test'),
    ]


def test_without_a_split_people_stay_together(tmp_path):
    expected = layouts.table(tmp_path, per_class=10, header='path,label,split,subject')
    lines = (tmp_path / 'labels.csv').read_text().splitlines()
    cells = [line.split(',') for line in lines]
    layouts.write(tmp_path / 'labels.csv', '\n'.join(f'{path},{label},{subject}' for path, label, _, subject in cells))
    candidates, _, source = layouts.read(table.open_source, tmp_path)
    assert {row.id for row in candidates} == expected.rows.keys()
    splits = collections.defaultdict(set)
    for row in candidates:
        splits[row.subject].add(row.split)
    assert {len(found) for found in splits.values()} == {1}
    assert collections.Counter(next(iter(found)) for found in splits.values()) == {
        'train': 24,
        'validation': 3,
        'test': 3,
    }
    assert 'all of it cut 80/10/10 %' in source.form


def test_one_table_per_split_by_their_names(tmp_path):
    for word in ('train', 'valid', 'test'):
        rows = ['image,label']
        for number, label in enumerate('12'):
            layouts.write(tmp_path / word / f'{number}.png', layouts.encode(layouts.face('fear', number)))
            rows.append(f'{number}.png,{label}')
        layouts.write(tmp_path / f'{word}_labels.csv', '\n'.join(rows))
    # Each table finds its own folder only if told: 0.png is in three folders.
    with pytest.raises(UserError, match=r'the pictures lie in two folders \(test/ and train/\)'):
        layouts.read(table.open_source, tmp_path)
    for word in ('train', 'valid', 'test'):
        (tmp_path / f'{word}_labels.csv').rename(tmp_path / word / f'{word}_labels.csv')
    candidates, rejects, source = layouts.read(table.open_source, tmp_path)
    assert rejects == []
    assert {(row.id, row.split, row.emotion) for row in candidates} == {
        (f'{split}/{number}.png', split, label)
        for split in ('train', 'validation', 'test')
        for number, label in enumerate('12')
    }
    assert 'config.data.rename gives names to labels that are numbers' in source.form


@pytest.mark.parametrize('given', ('directory', 'table', 'zip'))
def test_pictures_in_another_folder_are_found_by_looking(given, tmp_path):
    root = tmp_path / 'in'
    for number in range(3):
        layouts.write(root / 'data' / 'faces' / f'{number}.png', layouts.encode(layouts.face('fear', number)))
    layouts.write(root / 'labels.csv', 'file,label\n0.png,a\n1.png,b\n2.png,a\n')
    path = {'directory': root, 'table': root / 'labels.csv'}.get(given) or layouts.write_zip(tmp_path / 'a.zip', root)
    candidates, rejects, source = layouts.read(table.open_source, path)
    assert rejects == []
    assert '(pictures in data/faces/)' in source.form
    for row in candidates:
        assert (layouts.decode_candidate(row) == layouts.face('fear', int(row.id[0]))).all()


def test_paths_may_leave_the_folder_but_not_a_zip(tmp_path):
    for name in ('above.png', 'in/inside.png'):
        layouts.write(tmp_path / name, layouts.encode(layouts.face('fear', 0)))
    rows = f'path,label\n../above.png,a\ninside.png,b\n{tmp_path}/above.png,b\n'
    layouts.write(tmp_path / 'in' / 'labels.csv', rows)
    candidates, rejects, _ = layouts.read(table.open_source, tmp_path / 'in')
    assert {row.id for row in candidates} == {'../above.png', 'inside.png', f'{tmp_path}/above.png'}
    assert rejects == []
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        archive.write(tmp_path / 'in' / 'labels.csv', 'labels.csv')
        archive.write(tmp_path / 'in' / 'inside.png', 'inside.png')
        archive.write(tmp_path / 'above.png', '../above.png')
    candidates, rejects, _ = layouts.read(table.open_source, tmp_path / 'a.zip')
    assert [row.id for row in candidates] == ['inside.png']
    assert {reject.reason for reject in rejects} == {
        "'../above.png' leads out of the zip",
        f"'{tmp_path}/above.png' leads out of the zip",
    }


def test_the_fingerprint_tells_other_labels_and_other_pictures(tmp_path):
    layouts.table(tmp_path)

    def digest():
        with table.open_source(tmp_path / 'labels.csv', table.ReaderOptions()) as source:
            return source.fingerprint()

    first = digest()
    assert digest() == first
    picture = next((tmp_path / 'pictures é').rglob('*.png'))
    content = picture.read_bytes()
    picture.write_bytes(content + b'x')
    assert digest() != first
    picture.write_bytes(content)
    assert digest() == first
    with (tmp_path / 'labels.csv').open('a') as file:
        file.write('\n')
    assert digest() != first


USELESS = {
    'no table': (lambda p: layouts.write(p / '1.png', 'x'), 'holds no table: a CSV of path,label[,split][,subject]'),
    'no label': (
        lambda p: layouts.write(p / 'a.csv', 'path,mood\n1.png,x\n'),
        'a.csv lacks a column of pictures or of labels (such as path and label); found: path, mood',
    ),
    'one class': (
        lambda p: [layouts.write(p / 'a.csv', 'path,label\n1.png,x\n'), layouts.write(p / '1.png', 'x')],
        "a.csv needs labels of two classes or more; found: only 'x'",
    ),
    'no pictures': (
        lambda p: layouts.write(p / 'a.csv', 'path,label\n1.png,x\n'),
        "none of the pictures that a.csv names is there (the first: '1.png')",
    ),
    'two tables': (
        lambda p: [layouts.write(p / f'{n}.csv', 'path,label\n') for n in 'ab'],
        'holds more than one table (a.csv, b.csv); give one of them, or name them by splits',
    ),
}


@pytest.mark.parametrize('case', USELESS)
def test_a_useless_source_is_one_clear_line(case, tmp_path):
    make, message = USELESS[case]
    make(tmp_path)
    with pytest.raises(UserError) as raised:
        layouts.read(table.open_source, tmp_path)
    assert message in str(raised.value)
    assert '\n' not in str(raised.value)


def test_control_characters_in_names_are_shown_and_still_lead_to_the_picture(tmp_path):
    lines = ['path,label,subject']
    for number, label in enumerate(('angry', 'my\x1b[31mred', 'angry', 'my\x1b[31mred')):
        name = f'a\x1b\u2028{number}.png'
        layouts.write(tmp_path / 'in' / name, layouts.encode(layouts.face('anger', number)))
        lines.append(f'{name},{label},p\x07')
    layouts.write(tmp_path / 'in' / 'labels.csv', '\n'.join(lines))
    for path in (tmp_path / 'in', layouts.write_zip(tmp_path / 'a.zip', tmp_path / 'in')):
        candidates, rejects, source = layouts.read(table.open_source, path)
        assert rejects == []
        assert source.class_names == ('anger', r'my\x1b[31mred')
        assert [row.id for row in candidates] == [rf'a\x1b\u2028{number}.png' for number in range(4)]
        assert {row.subject for row in candidates} == {r'p\x07'}
        for number, row in enumerate(candidates):
            assert (layouts.decode_candidate(row) == layouts.face('anger', number)).all()
