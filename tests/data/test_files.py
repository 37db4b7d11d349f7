"""Files are read alike from a disk and from a zip; a fingerprint stands for names and contents."""

import os
import zipfile

import pytest

from fer_jax.data.files import PictureFiles, fingerprint, open_members, printable
from fer_jax.data.records import FilePicture


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'in' / 'ä b').mkdir(parents=True)
    (tmp_path / 'in' / 'ä b' / '1.jpg').write_bytes(b'first')
    (tmp_path / 'in' / '2.jpg').write_bytes(b'second')
    return tmp_path / 'in'


@pytest.fixture
def files():
    with PictureFiles() as files:
        yield files


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_pictures_are_read_by_the_names_that_were_listed(folder, files, tmp_path):
    path = tmp_path / 'a.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('x\\1.jpg', b'windows')
        archive.writestr('2.jpg', b'the first of two')
        archive.writestr('2.jpg', b'the second')
    with open_members(path) as members:
        assert [member.name for member in members] == ['2.jpg', '2.jpg', 'x/1.jpg']
    assert files.read(FilePicture(path, 'x/1.jpg'), 100) == b'windows'
    assert files.read(FilePicture(path, '2.jpg'), 100) == b'the first of two'
    assert files.read(FilePicture(folder / 'ä b' / '1.jpg'), 100) == b'first'


def test_what_cannot_be_read_says_why_and_not_where(folder, files, tmp_path):
    os.mkfifo(folder / 'pipe.jpg')
    (folder / 'link.jpg').symlink_to(tmp_path / 'nowhere')
    (tmp_path / 'b.zip').write_bytes(b'PK no zip')
    (tmp_path / 'c.zip').write_bytes(b'PK\5\6' + bytes(18))
    reasons = {
        FilePicture(folder / 'pipe.jpg'): 'unreadable: not a regular file',
        FilePicture(folder / 'link.jpg'): 'unreadable: a broken link',
        FilePicture(folder / '3.jpg'): 'unreadable: not a regular file',
        FilePicture(folder / '2.jpg'): '6 bytes, more than the 5 allowed',
        FilePicture(tmp_path / 'b.zip', '1.jpg'): 'unreadable: File is not a zip file',
        FilePicture(tmp_path / 'c.zip', '1.jpg'): 'unreadable: no longer in the zip',
    }
    for picture, reason in reasons.items():
        with pytest.raises(ValueError) as raised:
            files.read(picture, 5)
        assert str(raised.value) == reason


def test_another_name_or_content_is_another_fingerprint(folder):
    def of_now():
        with open_members(folder) as members:
            return fingerprint(folder, members)

    first = of_now()
    assert first == of_now() and first[1] == 11
    (folder / '2.jpg').write_bytes(b'sEcond')
    second = of_now()
    (folder / '2.jpg').rename(folder / '3.jpg')
    third = of_now()
    assert len({first, second, third}) == 3
    os.mkfifo(folder / 'pipe')
    assert of_now()[1] == 11


@pytest.mark.parametrize(
    ('name', 'shown'),
    [
        ('a b\u3000c\u00a0d é 幸.jpg', 'a b\u3000c\u00a0d é 幸.jpg'),  # spaces of three kinds
        ('\U0001f468\u200d\U0001f469 می\u200cخواهم', '\U0001f468\u200d\U0001f469 می\u200cخواهم'),  # joiners
        ('a\nb\tc\x1b[31m\x7f\x85', 'a\\nb\\tc\\x1b[31m\\x7f\\x85'),
        ('a\u2028b\u2029', 'a\\u2028b\\u2029'),
        ('a\u202egpj.exe\u2066\u200f', 'a\\u202egpj.exe\\u2066\\u200f'),
        (os.fsdecode(b'a\xff.jpg'), 'a\\udcff.jpg'),
    ],
)
def test_a_name_is_shown_in_one_line_that_does_nothing_to_a_terminal(name, shown):
    assert printable(name) == shown
    assert printable(shown) == shown
    assert len(shown.splitlines()) == 1 and shown.encode()


def test_pictures_are_found_under_the_names_that_are_shown(folder, files, tmp_path):
    (folder / 'a\nb\x1b.jpg').write_bytes(b'third')
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        archive.writestr('a\nb\x1b.jpg', b'zipped')
    with open_members(folder) as members:
        (member,) = [member for member in members if member.name == 'a\\nb\\x1b.jpg']
        assert files.read(FilePicture(member.path), 100) == b'third'
    with open_members(tmp_path / 'a.zip') as members:
        assert [member.name for member in members] == ['a\\nb\\x1b.jpg']
        assert files.read(FilePicture(tmp_path / 'a.zip', members[0].name), 100) == b'zipped'
