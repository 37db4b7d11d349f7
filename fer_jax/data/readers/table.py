"""Any table of path,label[,split][,subject], and the pictures that it names.

Columns are found by name (see _NAMES), paths are relative to the table. A label that means an emotion (angry, Happy, …)
becomes that emotion; any other keeps its own name. Paths may leave the table's folder (../, or absolute), since they
are the user's own files; in a zip they may not. Without a split the examples are cut 80/10/10, by subject where there
is one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fer_jax.data.files import Member, fingerprint, open_members, printable
from fer_jax.data.readers import cuts
from fer_jax.data.readers.emotions import class_name, in_order
from fer_jax.data.readers.sources import SPLIT_OF_NAME, is_picture, names_of, open_files, picture, refuse
from fer_jax.data.readers.tables import LOOKED_AT, Table, column, find_pictures, find_tables, read_header
from fer_jax.data.records import Candidate, ReaderOptions, Reject, Source
from fer_jax.errors import UserError

_NAMES = {
    'path': (
        *('path', 'file', 'filename', 'file_name', 'filepath', 'file_path', 'image', 'image_path', 'image_name'),
        *('img', 'img_path', 'picture', 'pth', 'subdirectory_filepath'),
    ),
    'label': ('label', 'labels', 'emotion', 'expression', 'class', 'class_name', 'category', 'target'),
    'split': ('split', 'usage', 'partition', 'set', 'subset', 'fold'),
    'subject': ('subject', 'subject_id', 'person', 'person_id', 'identity', 'actor'),
}


@contextlib.contextmanager
def open_source(path: Path, options: ReaderOptions) -> Iterator[Source]:
    """Recognises a table, or the table in a directory or zip; several if their names tell splits (train.csv, test.csv).

    Raises:
        UserError: if the path is missing, damaged or empty, there is no such table or more than one, none of its
            pictures is found, or it has fewer than two classes.
    """
    refuse(
        options,
        'a table of pictures',
        classes='drop or merge classes with config.data.drop and config.data.rename',
        votes='it is for --dataset=ferplus',
    )
    with open_files(path) as (path, members):
        tables = find_tables(members, [_NAMES['path'], _NAMES['label']])
        if not tables:
            raise UserError(_nothing_found(path, members))
        parts = [_part(path, table, split, members) for split, table in _splits(path, tables)]
        source, splits = _source(path, members, parts)
        shares = options.split or (() if splits else cuts.DEFAULT_SHARES)
        yield cuts.cut_anew(source, splits or {'train'}, shares, options.seed)


@dataclasses.dataclass(frozen=True)
class _Part:
    """A table, the split that its name tells ('' if none), its columns, and where its pictures lie.

    Attributes:
        members: the files of the directory or zip, by name; none for a table that was given alone.
        root: the directory that names are relative to; None in a zip.
        folder: '' or a path that ends with '/', put before the paths of the table.
    """

    table: Table
    split: str
    wanted: Mapping[str, int | None]
    members: Mapping[str, Member]
    root: Path | None
    folder: str

    def find(self, cell: str) -> tuple[str, Member]:
        """A picture's name among the files of the source, and the file.

        Raises:
            ValueError: if it is not there, or outside the zip.
        """
        if not cell:
            raise ValueError('no path')
        name = posixpath.normpath(posixpath.join(self.folder, cell.replace('\\', '/')))
        if self.root is None and name.startswith(('/', '../')):
            raise ValueError(f'{cell[:200]!r} leads out of the zip')
        shown = printable(name)
        if shown in self.members:
            return shown, self.members[shown]
        file = os.path.join(self.root or '', name)
        if self.root is None or not os.path.isfile(file):
            raise ValueError(f'there is no picture {cell[:200]!r}')
        return shown, Member(shown, os.path.getsize(file), functools.partial(open, file, 'rb'), Path(file))

    def has(self, cell: str) -> bool:
        """Whether the picture is there."""
        try:
            return bool(self.find(cell))
        except ValueError:
            return False


def _splits(path: Path, tables: Sequence[Table]) -> list[tuple[str, Table]]:
    if len(tables) == 1:
        return [('', tables[0])]
    of_split = {}
    for table in tables:
        words = re.split('[^a-z]+', table.member.name.rsplit('/', 1)[-1].lower())
        of_split.setdefault(next((SPLIT_OF_NAME[word] for word in words if word in SPLIT_OF_NAME), ''), table)
    if '' in of_split or len(of_split) < len(tables):
        names = ', '.join(table.member.name for table in tables)
        raise UserError(
            f'{printable(path)} holds more than one table ({names[:200]}); give one of them, or name them by splits '
            '(train.csv, val.csv, test.csv)'
        )
    return list(of_split.items())


def _part(path: Path, table: Table, split: str, members: Sequence[Member]) -> _Part:
    wanted = {name: column(table, words) for name, words in _NAMES.items()}
    alone = path.is_file() and table.member.path is not None
    root = None if table.member.path is None else path.parent if alone else path
    by_name = {} if alone else {member.name: member for member in reversed(members)}
    top = table.member.name.rpartition('/')[0]
    part = _Part(table, split, wanted, by_name, root, f'{top}/' if top else '')
    rows = (cells for _, cells in table.rows(wanted) if not isinstance(cells, str))
    cells = [row['path'] for row in itertools.islice(rows, LOOKED_AT)]
    if any(map(part.has, cells)):
        return part
    with open_members(root) if alone else contextlib.nullcontext(members) as members:
        folder = find_pictures(filter(is_picture, members), [cell.replace('\\', '/') for cell in cells])
    if folder is None:
        first = f' (the first: {cells[0][:80]!r})' if cells else ''
        raise UserError(f'none of the pictures that {table.member.name} names is there{first}')
    return dataclasses.replace(part, folder=folder)


def _source(path: Path, members: Sequence[Member], parts: Sequence[_Part]) -> tuple[Source, set[str]]:
    """The source, and the splits that it has itself."""
    total, labels, splits = 0, set(), {part.split for part in parts}
    tables, pictures = [part.table.member for part in parts], {}
    for part in parts:
        for _, cells in part.table.rows(part.wanted):
            total += 1
            if not isinstance(cells, str):
                labels.add(cells['label'])
                splits.add(SPLIT_OF_NAME.get(cells['split'].lower(), ''))
                with contextlib.suppress(ValueError):
                    pictures.setdefault(*part.find(cells['path']))
    class_names = in_order(class_name(label) for label in labels if label)
    if len(class_names) < 2:
        found = f'only {class_names[0][:80]!r}' if class_names else 'none'
        raise UserError(f'{tables[0].name} needs labels of two classes or more; found: {found}')
    numbered = '; config.data.rename gives names to labels that are numbers'
    names = ' and '.join(f'{part.table.member.name} (pictures in {part.folder or "./"})' for part in parts)
    used = [*tables, *(pictures[name] for name in sorted(pictures))]
    source = Source(
        path=path,
        form=f'the table {names}{numbered if all(name.isdecimal() for name in class_names) else ""}',
        class_names=class_names,
        image_shape=None,
        total=total,
        skipped=names_of(members, used) + tuple(line for part in parts for line in part.table.blank_lines()),
        fingerprint=functools.partial(fingerprint, parts[0].root or path, used),
        read=functools.partial(_read, path, parts),
    )
    return source, splits - {''}


def _read(path: Path, parts: Sequence[_Part]) -> Iterator[Candidate | Reject]:
    taken: dict[str, str] = {}
    for part in parts:
        for number, cells in part.table.rows(part.wanted):
            location = f'{part.table.member.name}:{number}'
            try:
                if isinstance(cells, str):
                    raise ValueError(cells)
                name, member = part.find(cells['path'])
                if not cells['label']:
                    raise ValueError('no label')
                split = _split(part, cells['split'])
                if name in taken:
                    raise ValueError(f'the same picture as {taken[name]}')
                taken[name] = location
            except ValueError as error:
                yield Reject(location, str(error))
            else:
                identity = printable(posixpath.normpath(cells['path'].replace('\\', '/')))
                if part.split:  # two tables may each have a picture of this path, in folders of their own
                    identity = f'{part.split}/{identity}'
                where, subject = picture(path, member), printable(cells['subject'])
                yield Candidate(location, split, class_name(cells['label']), identity, where, subject)


def _split(part: _Part, cell: str) -> str:
    if part.wanted['split'] is None:
        return part.split or 'train'
    if cell.lower() not in SPLIT_OF_NAME:
        raise ValueError(f'unknown split {cell[:20]!r}; it can be train, val or test')
    return SPLIT_OF_NAME[cell.lower()]


def _nothing_found(path: Path, members: Sequence[Member]) -> str:
    name = printable(path)
    alone = len(members) == 1 and path.is_file()
    tables = [member for member in members if alone or member.name.lower().endswith(('.csv', '.tsv'))]
    if not tables:
        return f'{name} holds no table: a CSV of path,label[,split][,subject] is needed'
    columns = ', '.join(read_header(tables[0]).columns)[:200]
    return (
        f'{tables[0].name} lacks a column of pictures or of labels (such as path and label); '
        f'found: {columns if columns.isprintable() and columns else "none"}'
    )
