"""Every form of FER2013 is read pixel by pixel, and what cannot be read is rejected with its place and reason."""

import collections
import dataclasses
import io
import os
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from fer_jax.data.files import PictureFiles
from fer_jax.data.preparing import read_face
from fer_jax.data.readers import fer2013
from fer_jax.data.records import ReaderOptions, Reject
from fer_jax.errors import UserError

USAGES = ('Training', 'PublicTest', 'PrivateTest')
FOLDERS = ('angry', 'disgust', 'fear', 'happy', 'sad', 'surprise', 'neutral')
EMOTIONS = ('anger', 'disgust', 'fear', 'happiness', 'sadness', 'surprise', 'neutral')
SPLITS = ('train', 'validation', 'test')

IMAGES = np.random.default_rng(0).integers(0, 256, (21, 48, 48), np.uint8)


def text_of(image):
    return ' '.join(map(str, image.ravel()))


def rows_of_all():
    """One face per usage and emotion: (emotion number, pixels, usage)."""
    return [(index % 7, text_of(image), USAGES[index // 7]) for index, image in enumerate(IMAGES)]


def write_table(path, rows, header='emotion,pixels,Usage', end='\n', start=''):
    lines = [header, *(','.join(map(str, row)) for row in rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((start + end.join(lines) + end).encode())
    return path


def write_icml(path):
    return write_table(path, [(a, c, b) for a, b, c in rows_of_all()], 'emotion, Usage, pixels')


def png_of(image, mode=None):
    picture = Image.fromarray(image)
    buffer = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(buffer, 'PNG')
    return buffer.getvalue()


def write_folders(root):
    """PNG bytes under the names of the folder form, so that the pixels stay exact."""
    for index, image in enumerate(IMAGES):
        usage = USAGES[index // 7]
        path = root / ('train' if usage == 'Training' else 'test') / FOLDERS[index % 7] / f'{usage}_{index:05d}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png_of(image))
    return root


def write_zip(path, folder, top=''):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob('*'), reverse=True):
            archive.write(file, top + file.relative_to(folder).as_posix())
    return path


def kaggle_download(folder):
    write_icml(folder / 'icml_face_data.csv')
    write_table(folder / 'train.csv', [row[:2] for row in rows_of_all()], 'emotion,pixels')
    write_table(folder / 'test.csv', [row[1:2] for row in rows_of_all()], 'pixels')
    (folder / 'fer2013.tar.gz').write_bytes(b'\x1f\x8b whatever')
    return folder


def zip_of_table(folder):
    return write_zip(folder / 'a.zip', write_table(folder / 'in' / 'fer2013.csv', rows_of_all()).parent, 'fer2013/')


def folder_around_zip(folder):
    write_zip(folder / 'fer2013.zip', write_folders(folder / 'in'))
    shutil.rmtree(folder / 'in')
    return folder


FORMS = {
    'csv': lambda p: write_table(p / 'fer2013.csv', rows_of_all()),
    'csv with BOM, CRLF and quotes': lambda p: write_table(
        p / 'fer2013.csv', [(a, f'"{b}"', c) for a, b, c in rows_of_all()], end='\r\n', start='\ufeff'
    ),
    'icml csv': lambda p: write_icml(p / 'icml_face_data.csv'),
    'csv without suffix': lambda p: write_table(p / 'table', rows_of_all()),
    'folder around csv': lambda p: write_table(p / 'fer2013.csv', rows_of_all()).parent,
    'kaggle download': kaggle_download,
    'folders': write_folders,
    'folders in a folder': lambda p: write_folders(p / 'fer 2013 é').parent,
    'csv beside folders': lambda p: write_table(write_folders(p) / 'fer2013.csv', rows_of_all()).parent,
    'zip of csv': zip_of_table,
    'zip of folders': lambda p: write_zip(p / 'a.zip', write_folders(p / 'in')),
    'zip of folders in a folder': lambda p: write_zip(p / 'ä b.zip', write_folders(p / 'in'), 'FER 2013/'),
    'zip without suffix': lambda p: write_zip(p / 'download', write_folders(p / 'in')),
    'folder around zip': folder_around_zip,
}


@dataclasses.dataclass
class Example:
    location: str
    split: str
    emotion: str
    id: str
    image: np.ndarray


def read(path, **options):
    """What becomes of every record once its picture is read: examples, rejects; and the source."""
    examples, rejects = [], []
    with fer2013.open_source(path, ReaderOptions(**options)) as source, PictureFiles() as files:
        for record in source.read():
            if isinstance(record, Reject):
                rejects.append(record)
                continue
            try:
                image, _ = read_face(record, source.image_shape, files)
            except ValueError as error:
                rejects.append(Reject(record.location, str(error)))
            else:
                examples.append(Example(record.location, record.split, record.emotion, record.id, image))
    assert len(examples) + len(rejects) == source.total
    if source.cut:
        split_of = source.cut((row.id, row.emotion, '') for row in examples if row.split == 'train')
        examples = [dataclasses.replace(row, split=split_of.get(row.id, row.split)) for row in examples]
    return examples, rejects, source


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


def test_a_bad_row_is_rejected_with_its_line_and_reason(tmp_path):
    good = text_of(IMAGES[0])
    rest = good.split(' ', 1)[1]
    path = write_table(
        tmp_path / 'fer2013.csv',
        [
            (0, good, 'Training'),
            (0, good + ' 7', 'Training'),
            (0, '', 'Training'),
            (0, '256 ' + rest, 'Training'),
            (0, '-1 ' + rest, 'Training'),
            (0, '1.5 ' + rest, 'Training'),
            (0, '٣ ' + rest, 'Training'),
            (7, good, 'Training'),
            ('', good, 'Training'),
            (0, good, 'Trainig'),
            (0, good),
            (0, '"' + good, 'Training'),
            (1, good, 'PrivateTest'),
        ],
    )
    examples, rejects, _ = read(path)
    assert [(row.location, row.id) for row in examples] == [
        ('fer2013.csv:2', 'Training_00000'),
        ('fer2013.csv:14', 'PrivateTest_00012'),
    ]
    reasons = [
        '2305 pixels instead of 2304',
        '0 pixels instead of 2304',
        "pixel '256' is not an integer in 0..255",
        "pixel '-1' is not an integer in 0..255",
        "pixel '1.5' is not an integer in 0..255",
        "pixel '٣' is not an integer in 0..255",
        "unknown emotion '7'; it can be 0 to 6",
        "unknown emotion ''; it can be 0 to 6",
        "unknown Usage 'Trainig'; it can be Training, PublicTest or PrivateTest",
        '2 columns instead of 3',
        'malformed row: unexpected end of data',
    ]
    assert [(row.location, row.reason) for row in rejects] == [
        (f'fer2013.csv:{line}', reason) for line, reason in enumerate(reasons, 3)
    ]


def test_blank_lines_are_skipped_and_an_endless_line_is_one_reject(tmp_path):
    rows = rows_of_all()[:2]
    path = write_table(tmp_path / 'fer2013.csv', [rows[0], ('',), (0, '1 ' * 100_000, 'Training'), rows[1]])
    examples, rejects, source = read(path)
    assert [row.location for row in examples] == ['fer2013.csv:2', 'fer2013.csv:5']
    assert [row.location for row in rejects] == ['fer2013.csv:4']
    assert source.skipped == ('fer2013.csv:3 (blank)',)


def colourful():
    image = np.zeros((48, 48, 3), np.uint8)
    image[..., 0] = 200
    return png_of(image)


BAD_FILES = {
    'train/angry/face_1.jpg': (png_of(IMAGES[0]), 'no usage in the file name'),
    'train/contempt/Training_2.jpg': (png_of(IMAGES[0]), "unknown emotion folder 'contempt'"),
    'old/angry/Training_3.jpg': (png_of(IMAGES[0]), "unknown split folder 'old'"),
    'Training_4.jpg': (png_of(IMAGES[0]), 'unknown emotion folder'),
    'test/angry/Training_5.jpg': (png_of(IMAGES[0]), 'the file name says Training, the folder test'),
    'train/angry/PrivateTest_6.jpg': (png_of(IMAGES[0]), 'the file name says PrivateTest, the folder train'),
    'train/angry/Training_7.jpg': (b'\xff\xd8\xff\xe0 no picture', 'undecodable picture'),
    'train/angry/Training_8.jpg': (b'', 'not a picture'),
    'train/angry/Training_9.jpg': (png_of(IMAGES[0])[:700], 'undecodable picture'),
    'train/angry/Training_10.jpg': (png_of(IMAGES[0][:40]), '48x40 pixels instead of 48x48'),
    'train/angry/Training_11.jpg': (colourful(), 'a colour picture instead of a grey one'),
    'train/angry/Training_12.txt': (b'hello', 'not a picture'),
}


@pytest.mark.parametrize('zipped', (False, True))
def test_a_bad_file_is_rejected_with_its_name_and_reason(zipped, tmp_path):
    root = write_folders(tmp_path / 'in')
    for name, (content, _) in BAD_FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / 'train/angry/Training_13.jpg').write_bytes(png_of(IMAGES[3], 'RGB'))
    skipped = ('.DS_Store', 'README.md', '__MACOSX/train/angry/._Training_1.jpg', 'train/angry/Thumbs.db')
    for name in skipped:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b'x')
    examples, rejects, source = read(write_zip(tmp_path / 'a.zip', root) if zipped else root)
    assert {row.location for row in rejects} == set(BAD_FILES)
    for row in rejects:
        assert row.reason.startswith(BAD_FILES[row.location][1])
    assert source.skipped == skipped
    assert len(examples) == 22
    (grey,) = [row for row in examples if row.id == 'Training_13']
    np.testing.assert_array_equal(grey.image[..., 0], IMAGES[3])


def test_one_name_under_two_emotions_keeps_both_with_ids_of_their_own(tmp_path):
    root = write_folders(tmp_path)
    shutil.copy(root / 'train/angry/Training_00000.jpg', root / 'train/surprise/Training_00000.jpg')
    examples, rejects, _ = read(root)
    assert rejects == []
    ids = [row.id for row in examples]
    assert len(set(ids)) == 22
    assert {'Training_00000-anger', 'Training_00000-surprise'} < set(ids)


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_a_name_twice_in_a_zip_is_rejected_once(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        for image in IMAGES[:2]:
            archive.writestr('train/angry/Training_1.jpg', png_of(image))
    examples, rejects, _ = read(tmp_path / 'a.zip')
    assert [row.id for row in examples] == ['Training_1-anger']
    assert [row.reason for row in rejects] == ['the same name as train/angry/Training_1.jpg']


def test_a_damaged_zip_member_is_rejected_and_the_rest_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        for index, image in enumerate(IMAGES[:3]):
            archive.writestr(f'train/angry/Training_{index}.jpg', png_of(image))
        place = archive.infolist()[1].header_offset + 200
    data = bytearray((tmp_path / 'a.zip').read_bytes())
    data[place] ^= 1
    (tmp_path / 'a.zip').write_bytes(data)
    examples, rejects, _ = read(tmp_path / 'a.zip')
    assert [row.id for row in examples] == ['Training_0', 'Training_2']
    assert [row.location for row in rejects] == ['train/angry/Training_1.jpg']
    assert 'Bad CRC-32' in rejects[0].reason


def test_a_member_that_would_unpack_to_too_much_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('train/angry/Training_0.jpg', png_of(IMAGES[0]))
        archive.writestr('train/angry/Training_1.jpg', bytes((64 << 20) + 1))
    _, rejects, _ = read(tmp_path / 'a.zip')
    assert [row.reason for row in rejects] == ['67,108,865 bytes, more than the 67,108,864 allowed']


def test_links_in_circles_broken_links_pipes_and_odd_names(tmp_path):
    root = write_folders(tmp_path / 'in')
    (root / 'train' / 'again').symlink_to(root)
    (root / 'train/angry/Training_98.jpg').symlink_to(tmp_path / 'nowhere')
    os.mkfifo(root / 'train/angry/Training_99.jpg')
    (root / os.fsdecode(b'train/angry/Training_\xff.jpg')).write_bytes(png_of(IMAGES[0]))
    examples, rejects, _ = read(root)
    assert len(examples) == 22
    assert 'Training_\\udcff' in {row.id for row in examples}
    assert {row.location: row.reason for row in rejects} == {
        'train/angry/Training_98.jpg': 'unreadable: a broken link',
        'train/angry/Training_99.jpg': 'unreadable: not a regular file',
    }


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


def written(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
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


def mutate(data, rng):
    """Changes, removes or doubles some bytes."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        place = int(rng.integers(len(data)))
        kind = rng.integers(4)
        if kind == 0:
            data[place] = rng.integers(256)
        elif kind == 1:
            del data[place : place + int(rng.integers(1, 40))]
        elif kind == 2:
            data[place:place] = data[place : place + 30]
        else:
            data[place : place + 4] = rng.bytes(4)
        if len(data) < 10:
            break
    return bytes(data)


@pytest.mark.filterwarnings('ignore:Duplicate name')
@pytest.mark.parametrize('kind', ('table', 'zip of a table', 'zip of folders', 'pictures'))
def test_mutated_sources_never_crash_the_reader(kind, tmp_path):
    rng = np.random.default_rng(7)
    small = write_table(tmp_path / 'small' / 'fer2013.csv', rows_of_all()[::4])
    folders = tmp_path / 'in'
    for index in range(4):
        picture = io.BytesIO()
        Image.fromarray(IMAGES[index]).save(picture, ('JPEG', 'PNG')[index % 2])
        written(folders / f'train/angry/Training_{index}.jpg', picture.getvalue())
    original = {
        'table': lambda: small,
        'zip of a table': lambda: write_zip(tmp_path / 'a.zip', small.parent),
        'zip of folders': lambda: write_zip(tmp_path / 'b.zip', folders),
        'pictures': lambda: folders / 'train/angry/Training_0.jpg',
    }[kind]()
    data = original.read_bytes()
    outcomes = {'read': 0, 'rejected some': 0, 'refused': 0}
    for trial in range(130):
        if kind == 'pictures':
            target = folders / f'train/angry/Training_{trial % 4}.jpg'
            data, source = target.read_bytes(), folders
        else:
            target = source = tmp_path / f'mutant{original.suffix}'
        target.write_bytes(mutate(data, rng))
        try:
            examples, rejects, opened = read(source)
        except UserError as error:
            assert '\n' not in str(error)
            outcomes['refused'] += 1
        else:
            assert len(examples) + len(rejects) == opened.total
            outcomes['rejected some' if rejects else 'read'] += 1
        if kind == 'pictures':
            target.write_bytes(data)
    assert sum(outcomes.values()) == 130
    assert outcomes['rejected some'] + outcomes['refused'] > 30
