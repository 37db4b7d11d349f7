"""What the readers share: finding the files of a source, names of splits, and refusing what a reader does not know."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from fer_jax.data.files import Member, open_members, printable
from fer_jax.data.records import FilePicture, ReaderOptions
from fer_jax.errors import UserError

# What looks like a picture. Which of them can be decoded shows when they are.
PICTURES = (
    *('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.bmp', '.pgm', '.ppm', '.tif', '.tiff', '.webp'),
    *('.gif', '.heic', '.heif', '.avif'),
)
_DATA = (*PICTURES, '.csv', '.tsv', '.npy')

SPLIT_OF_NAME = (
    dict.fromkeys(('train', 'training', 'train_set', 'trainset', 'training_set'), 'train')
    | dict.fromkeys(
        ('val', 'valid', 'validation', 'dev', 'val_set', 'valset', 'valid_set', 'validation_set', 'publictest'),
        'validation',
    )
    | dict.fromkeys(('test', 'testing', 'test_set', 'testset', 'privatetest'), 'test')
)


@contextlib.contextmanager
def open_files(path: Path) -> Iterator[tuple[Path, tuple[Member, ...]]]:
    """The files of a directory or zip; of a directory whose only data is one zip, the files of that zip.

    Yields:
        The directory, zip or file that holds them, and the files by name.

    Raises:
        UserError: if the path is missing, damaged or empty, or holds several zips and nothing else.
    """
    path = Path(path)
    with contextlib.ExitStack() as stack:
        members = stack.enter_context(open_members(path))
        if path.is_dir() and not any(is_data(member) for member in members):
            zips = sorted(file for file in path.iterdir() if file.suffix.lower() == '.zip' and file.is_file())
            if len(zips) > 1:
                names = ', '.join(printable(file.name) for file in zips)
                raise UserError(f'{printable(path)} holds more than one zip ({names}); unpack them, or give one')
            if zips:
                path = zips[0]
                members = stack.enter_context(open_members(path))
        if not any(member.size for member in members):
            raise UserError(f'{printable(path)} is empty')
        yield path, members


def is_data(member: Member) -> bool:
    """Whether a file may belong to a data set: a picture, a table or an array, and not what systems leave about."""
    return not member.is_junk and member.name.lower().endswith(_DATA)


def is_picture(member: Member) -> bool:
    """Whether a file looks like a picture by its name."""
    return not member.is_junk and member.name.lower().endswith(PICTURES)


def picture(path: Path, member: Member) -> FilePicture:
    """Where a worker process finds the picture; `path` is the zip, if it lies in one."""
    return FilePicture(member.path) if member.path else FilePicture(path, member.name)


def names_of(members: Sequence[Member], used: Sequence[Member]) -> tuple[str, ...]:
    """Names of the files that are not among `used`."""
    taken = {id(member) for member in used}
    return tuple(member.name for member in members if id(member) not in taken)


def refuse(options: ReaderOptions, reader: str, **reasons: str) -> None:
    """Stops at an option that this reader does not have.

    Args:
        reasons: by name of the option, what would be right.

    Raises:
        UserError: if one of them is set.
    """
    for name, reason in reasons.items():
        if getattr(options, name):
            raise UserError(f'{reader} has no option {name}: {reason}')
