"""The files in a directory, in a zip, or just one file: listed and opened alike."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import os
import stat
import sys
import unicodedata
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from fer_jax.data.records import FilePicture
from fer_jax.errors import UserError

# The characters of Unicode's property Bidi_Control.
_TURNING = frozenset('\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069')
_TOGETHER = 64  # files hashed by a thread at a time: handing over a small one costs more than hashing it
_JUNK = ('thumbs.db', 'ehthumbs.db', 'desktop.ini', '__macosx')


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """One file: printable name with '/' between the parts, size in bytes, path on disk (None inside a zip).

    `open` may raise anything that a damaged archive makes zipfile raise.
    """

    name: str
    size: int
    open: Callable[[], BinaryIO]
    path: Path | None = None

    @property
    def is_junk(self) -> bool:
        """Hidden files, and what Windows and macOS leave in folders and archives."""
        return any(part.startswith('.') or part.lower() in _JUNK for part in self.name.split('/'))

    def read(self, limit: int) -> bytes:
        """The content.

        Raises:
            ValueError: if it has more than `limit` bytes, or cannot be read.
        """
        return _read(self.open, self.size, limit)


class PictureFiles:
    """Reads picture files; zips stay open in between, since listing a large one takes a second. A context manager."""

    def __init__(self):
        self._zips: dict[Path, tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]] = {}

    def __enter__(self) -> PictureFiles:
        return self

    def __exit__(self, *_) -> None:
        for archive, _ in self._zips.values():
            archive.close()
        self._zips.clear()

    def read(self, picture: FilePicture, limit: int) -> bytes:
        """The content of the file.

        Raises:
            ValueError: if it has more than `limit` bytes, or cannot be read.
        """
        if not picture.member:
            file = _file(picture.path, '')
            return _read(file.open, file.size, limit)
        if picture.path not in self._zips:
            try:
                archive = zipfile.ZipFile(picture.path)
            except Exception as error:  # as in _open_zip
                raise ValueError(f'unreadable: {_reason(error)}') from None
            # Of two entries with one name the first counts.
            self._zips[picture.path] = archive, {_name(info): info for info in reversed(archive.infolist())}
        archive, infos = self._zips[picture.path]
        info = infos.get(picture.member)
        if info is None:
            raise ValueError('unreadable: no longer in the zip')
        return _read(functools.partial(archive.open, info), info.file_size, limit)


@contextlib.contextmanager
def open_members(path: Path) -> Iterator[tuple[Member, ...]]:
    """Lists the files of a directory or zip (or the one file itself), sorted by name.

    Raises:
        UserError: if the path is missing, or is an archive that is damaged or of another kind.
    """
    if not path.exists():
        raise UserError(f'{printable(path)} does not exist')
    if path.is_dir():
        yield tuple(sorted(_walk(path), key=lambda member: member.name))
        return
    if not path.is_file():
        raise UserError(f'{printable(path)} is neither a file nor a directory')
    with path.open('rb') as file:
        magic = file.read(4)
    if magic[:2] == b'\x1f\x8b' or path.suffix.lower() in ('.tar', '.tgz', '.gz', '.7z', '.rar'):
        raise UserError(f'{printable(path)} is an archive but not a zip; unpack it and give the directory')
    if magic[:2] == b'PK' or path.suffix.lower() == '.zip':
        with _open_zip(path) as archive:
            members = [
                Member(_name(info), info.file_size, functools.partial(archive.open, info))
                for info in archive.infolist()
                if not info.is_dir()
            ]
            yield tuple(sorted(members, key=lambda member: member.name))
        return
    yield (Member(printable(path.name), path.stat().st_size, functools.partial(path.open, 'rb'), path),)


def folder_names(path: Path) -> Iterator[str]:
    """The folders with files in a directory or zip, and empty ones, as the names of members; none in a single file."""
    if path.is_dir():
        for folder, _ in _folders(path):
            yield printable(Path(folder).relative_to(path).as_posix())
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:  # not each lists its folders
            yield from {_name(info).rpartition('/')[0] for info in archive.infolist()} - {''}


def fingerprint(path: Path, members: Sequence[Member]) -> tuple[str, int]:
    """SHA-256 (hex) and size in bytes of a file; of a directory, over names and contents of `members`.

    Shows a progress bar where it takes longer than two seconds.
    """
    if not path.is_dir():
        with path.open('rb') as file:
            return hashlib.file_digest(file, 'sha256').hexdigest(), path.stat().st_size
    digest = hashlib.sha256()
    bar = tqdm(total=len(members), desc='fingerprint', unit=' files', delay=2, leave=False, file=sys.stderr)
    with bar, ThreadPoolExecutor() as threads:
        for start in range(0, len(members), 1024):  # all at once could not be interrupted
            block = members[start : start + 1024]
            shares = [block[first : first + _TOGETHER] for first in range(0, len(block), _TOGETHER)]
            contents = itertools.chain.from_iterable(threads.map(_digests, shares))
            for member, content in zip(block, contents, strict=True):
                digest.update(member.name.encode() + b'\0' + content)
            bar.update(len(block))
    return digest.hexdigest(), sum(max(member.size, 0) for member in members)


def printable(name: str | os.PathLike) -> str:
    """A name that can be written as UTF-8, in one line, and does nothing to a terminal.

    What else would come out as backslash escapes: bytes that are no UTF-8, control characters, line and paragraph
    separators, and what turns the direction of writing about. Spaces of all kinds stay, and so do the joiners that some
    scripts and emoji need.
    """
    text = os.fspath(name)
    if text.isprintable():
        return text
    misleads = lambda letter: letter in _TURNING or unicodedata.category(letter) in ('Cc', 'Cs', 'Zl', 'Zp')
    return ''.join(repr(letter)[1:-1] if misleads(letter) else letter for letter in text)


def _digests(members: Sequence[Member]) -> list[bytes]:
    return [_digest(member) for member in members]


def _digest(member: Member) -> bytes:
    if member.size < 0:
        return b'not a regular file'
    try:
        with member.open() as file:
            return hashlib.file_digest(file, 'sha256').digest()
    except OSError:  # whoever reads it rejects it
        return b'unreadable'


def _read(opener: Callable[[], BinaryIO], size: int, limit: int) -> bytes:
    if size > limit:
        raise ValueError(f'{size:,} bytes, more than the {limit:,} allowed')
    try:
        with opener() as file:
            data = file.read(limit + 1)
    except Exception as error:  # a damaged zip member raises zlib.error, BadZipFile, NotImplementedError and more
        raise ValueError(f'unreadable: {_reason(error)}') from None
    if len(data) > limit:
        raise ValueError(f'more than the {limit:,} bytes allowed')
    return data


def _reason(error: Exception) -> str:
    """Without the path, which is that of one machine."""
    return (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__


def _name(info: zipfile.ZipInfo) -> str:
    return printable(info.filename.replace('\\', '/'))


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except PermissionError:
        raise
    except (
        Exception
    ) as error:  # damaged directories raise struct.error, UnicodeDecodeError and others besides BadZipFile
        raise UserError(
            f'{printable(path)} is not a whole zip file ({str(error) or type(error).__name__}); fetch it again'
        ) from None


def _walk(root: Path) -> Iterator[Member]:
    for folder, names in _folders(root):
        above = os.path.relpath(folder, root)
        for name in names:
            yield _file(Path(folder, name), printable(name if above == os.curdir else f'{above}/{name}'))


def _folders(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Every folder, links followed, and the names of the files in it."""
    seen = {os.path.realpath(root)}

    def fail(error: OSError):
        raise error

    for folder, folders, names in os.walk(root, followlinks=True, onerror=fail):
        kept = []
        for name in folders:
            real = os.path.realpath(os.path.join(folder, name))
            if real not in seen:  # a link to a folder above would lead round in circles
                seen.add(real)
                kept.append(name)
        folders[:] = kept
        yield folder, names


def _file(path: Path, name: str) -> Member:
    try:
        info = path.stat()
    except OSError:
        info = None
    if info is None or not stat.S_ISREG(info.st_mode):
        return Member(name, -1, functools.partial(_refuse, path), path)
    return Member(name, info.st_size, functools.partial(open, path, 'rb'), path)


def _refuse(path: Path) -> BinaryIO:
    raise ValueError('a broken link' if path.is_symlink() and not path.exists() else 'not a regular file')
