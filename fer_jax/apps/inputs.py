"""What a command is to read: pictures and films, out of files, folders and patterns."""

from __future__ import annotations

import dataclasses
import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from fer_jax.data.files import Member, open_members, printable
from fer_jax.data.readers.sources import PICTURES
from fer_jax.errors import UserError

FILMS = ('.mp4', '.m4v', '.mov', '.mkv', '.webm', '.avi', '.mpg', '.mpeg', '.ts', '.wmv', '.flv', '.ogv', '.3gp')


@dataclasses.dataclass(frozen=True)
class Input:
    """A file to be read.

    name: printable, unlike all others': its path from the folder that holds everything, '/' between the parts.
    member: the file.
    modified: when, in nanoseconds; 0 where that cannot be known.
    """

    name: str
    member: Member
    modified: int

    @property
    def is_film(self) -> bool:
        """Told by the name's ending; whether a picture is one shows when it is decoded."""
        return self.name.lower().endswith(FILMS)


def find_inputs(words: Sequence[str], output: Path, empty: bool = False) -> tuple[list[Input], list[str]]:
    """The files that words name, in order: files as they are, of folders what looks like a picture or film.

    Args:
        words: paths, or patterns as the shell has them (** goes into folders).
        output: a folder whose files are left out: results of an earlier call.
        empty: whether there may be nothing; the words are folders then, which may be gone.

    Returns:
        The inputs, and the names of a folder's files that are neither picture nor film.

    Raises:
        UserError: on an address of the web, what is not there, and where nothing is left but may not be.
    """
    found: dict[Path, Member] = {}
    skipped: list[Path] = []
    places = []
    for word in words:
        if empty and not _absolute(word).exists():
            places.append(_absolute(word))
            continue
        for path in _expand(word):
            places.append(path if path.is_dir() else path.parent)
            for file, member in _files(path, output.absolute()):
                if path.is_dir() and not member.name.lower().endswith((*PICTURES, *FILMS)):
                    skipped.append(file)
                else:
                    found.setdefault(file, member)
    if not found and not empty:
        shown = ' '.join(map(printable, words))
        raise UserError(f'{shown}: no picture and no film there; wanted are {" ".join((*PICTURES, *FILMS))}')
    base = os.path.commonpath(places)
    name = lambda file: printable(Path(os.path.relpath(file, base)).as_posix())
    return [Input(name(file), found[file], _modified(file)) for file in found], [name(file) for file in skipped]


def _expand(word: str) -> list[Path]:
    """The paths that a word names, absolute."""
    if re.match(r'[A-Za-z][A-Za-z0-9+.-]*://', word):
        raise UserError(f'{printable(word)} is an address; only files of this machine are read: fetch it first')
    path = _absolute(word)
    if path.exists() or path.is_symlink():
        return [path]
    if glob.has_magic(word):
        matches = sorted(glob.glob(os.path.expanduser(word), recursive=True))
        if not matches:
            raise UserError(f'{printable(word)} matches no file')
        return [Path(os.path.abspath(match)) for match in matches]
    raise UserError(
        f'{printable(word)} does not exist; wanted is a picture, a film, a folder, a pattern, webcam or screen'
    )


def _absolute(word: str) -> Path:
    return Path(os.path.abspath(os.path.expanduser(word)))


def _files(path: Path, output: Path) -> list[tuple[Path, Member]]:
    if not path.is_dir():
        return [(path, _file(path))]
    with open_members(path) as members:
        own = [(member.path.absolute(), member) for member in members if not member.is_junk]
    return [(file, member) for file, member in own if not file.is_relative_to(output)]


def _file(path: Path) -> Member:
    try:
        size = path.stat().st_size if path.is_file() else -1
    except OSError:
        size = -1
    return Member(printable(path.name), size, lambda: path.open('rb'), path)


def _modified(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0
