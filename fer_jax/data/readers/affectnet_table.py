"""AffectNet's original release: tables of picture, face box, 68 landmarks, expression, valence and arousal.

The pictures lie relative to the table's folder or to another one such as Manually_Annotated_Images: the folder is found
by looking for the first rows' pictures.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fer_jax.data.files import Member, fingerprint, printable
from fer_jax.data.readers.affectnet_labels import emotion_of, numbers_of
from fer_jax.data.readers.npy import parse_number
from fer_jax.data.readers.sources import SPLIT_OF_NAME, is_picture, names_of, picture
from fer_jax.data.readers.tables import LOOKED_AT, Table, find_pictures, find_tables
from fer_jax.data.records import Candidate, Reject, Source
from fer_jax.errors import UserError

_PATH, _LABEL = 'subdirectory_filepath', 'expression'
_BOX = ('face_x', 'face_y', 'face_width', 'face_height')
_WORDS = {'train': 'train', 'validation': 'val', 'test': 'test'}  # that the tables' names begin with
_KIND_OF_COLUMN = {'valence': 'val', 'arousal': 'aro', 'facial_landmarks': 'lnd'}


def find(members: Sequence[Member], only: str = '') -> dict[str, Table]:
    """AffectNet's tables by split, which their names begin with.

    A table labelled by a network (automatically_annotated.csv) is taken only where no other is there. A single table
    of another name is training.

    Args:
        only: the one file to consider, if any.

    Raises:
        UserError: if two tables claim the same split.
    """
    tables = find_tables([member for member in members if not only or member.name == only], [[_PATH], [_LABEL]])
    if len(tables) > 1:
        tables = [table for table in tables if not _stem(table).startswith('automatic')]
    of_split = {}
    for table in tables:
        stem = _stem(table)
        split = next((split for split, word in _WORDS.items() if stem.startswith(word)), 'train')
        if split in of_split:
            names = f'{of_split[split].member.name}, {table.member.name}'
            raise UserError(f'more than one table for {split} ({names}); give one of them, or take the other away')
        of_split[split] = table
    return of_split


def _stem(table: Table) -> str:
    return table.member.name.rsplit('/', 1)[-1].lower()


@dataclasses.dataclass(frozen=True)
class _Part:
    split: str
    table: Table
    wanted: Mapping[str, int | None]
    folder: str  # above the paths of the table


def source(path: Path, members: Sequence[Member], tables: Mapping[str, Table], emotions: Sequence[str]) -> Source:
    """The source that these tables describe.

    Raises:
        UserError: if no picture of a table is found.
    """
    pictures = {member.name: member for member in reversed(members) if is_picture(member)}
    parts = [_part(split, table, pictures) for split, table in tables.items()]
    total, blank, used = 0, [], {table.member.name: table.member for table in tables.values()}
    for part in parts:
        blank += part.table.blank_lines()
        for _, cells in part.table.rows(part.wanted):
            total += 1
            if not isinstance(cells, str) and (name := part.folder + _relative(cells[_PATH])) in pictures:
                used[name] = pictures[name]
    names = ' and '.join(f'{part.table.member.name} (pictures in {part.folder or "./"})' for part in parts)
    ignored = [
        member.name for member in members if member.name.lower().rsplit('/', 1)[-1] == 'automatically_annotated.csv'
    ]
    automatic = '; automatically_annotated.csv is not read' if ignored and ignored[0] not in used else ''
    return Source(
        path=path,
        form=f'the tables {names} in {printable(path.name or path)}{automatic}',
        class_names=tuple(emotions),
        image_shape=None,
        total=total,
        skipped=names_of(members, list(used.values())) + tuple(blank),
        fingerprint=functools.partial(fingerprint, path, [used[name] for name in sorted(used)]),
        read=functools.partial(_read, path, parts, pictures, tuple(emotions)),
    )


def _part(split: str, table: Table, pictures: Mapping[str, Member]) -> _Part:
    keys = [key for key in (_PATH, _LABEL, *_BOX, *_KIND_OF_COLUMN) if key in table.columns]
    wanted = {key: table.columns.index(key) for key in keys}
    rows = (cells for _, cells in table.rows(wanted) if not isinstance(cells, str))
    paths = [_relative(cells[_PATH]) for cells in itertools.islice(rows, LOOKED_AT)]
    # train/0/1.jpg and val/0/1.jpg may both be there: a folder named by another split is the last to be looked into.
    own = [member for member in pictures.values() if not _is_of_another(split, member)]
    folder = find_pictures(own, paths)
    if folder is None:
        folder = find_pictures(pictures.values(), paths)
    if folder is None:
        first = f' (the first: {paths[0][:80]!r})' if paths else ''
        raise UserError(
            f'none of the pictures that {table.member.name} names is there{first}; give the folder above both'
        )
    return _Part(split, table, wanted, folder)


def _is_of_another(split: str, member: Member) -> bool:
    return any(SPLIT_OF_NAME.get(folder.lower(), split) != split for folder in member.name.split('/')[:-1])


def _relative(path: str) -> str:
    return path.replace('\\', '/').removeprefix('./')


def _read(
    path: Path, parts: Sequence[_Part], pictures: Mapping[str, Member], emotions: Sequence[str]
) -> Iterator[Candidate | Reject]:
    taken: dict[str, str] = {}
    together = len({part.folder for part in parts}) == 1
    for part in parts:
        for number, cells in part.table.rows(part.wanted):
            location = f'{part.table.member.name}:{number}'
            try:
                if isinstance(cells, str):
                    raise ValueError(cells)
                relative = _relative(cells[_PATH])
                name = part.folder + relative
                if name not in pictures:
                    raise ValueError(f'there is no picture {relative[:200]!r}')
                if name in taken:
                    raise ValueError(f'the same picture as {taken[name]}')
                taken[name] = location
                emotion = emotion_of(cells[_LABEL], emotions)
                box = _box(cells)
                numbers = numbers_of({kind: cells.get(name) for name, kind in _KIND_OF_COLUMN.items()})
            except ValueError as error:
                yield Reject(location, str(error))
            else:
                # Two tables may each have a picture of this path, in folders of their own.
                identity = relative if together else f'{part.split}/{relative}'
                where = picture(path, pictures[name])
                yield Candidate(location, part.split, emotion, identity, where, box=box, numbers=numbers)


def _box(cells: Mapping[str, str]) -> tuple[float, float, float, float] | None:
    if not any(cells.get(name) for name in _BOX):
        return None
    left, top, width, height = (parse_number(cells.get(name, '')) for name in _BOX)
    if not all(map(math.isfinite, (left, top, width, height))) or width <= 0 or height <= 0:
        raise ValueError(f'a face box of {width:g} x {height:g} at {left:g}, {top:g}')
    return left, top, width, height
