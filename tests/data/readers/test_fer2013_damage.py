"""What cannot be read of FER2013 is rejected with its place and reason, and the rest is read."""

import io
import os
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from fer_jax.errors import UserError
from tests.data.readers.fer2013_forms import (
    IMAGES,
    png_of,
    read,
    rows_of_all,
    text_of,
    write_folders,
    write_table,
    write_zip,
    written,
)


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
