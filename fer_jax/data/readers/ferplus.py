"""FER+ (Barsoum et al. 2016): the votes of ten annotators, joined to the rows of FER2013's table.

The votes stand in fer2013new.csv (https://github.com/microsoft/FERPlus), whose rows are those of fer2013.csv in the
same order; the names in it (fer0000059.png) are not row numbers. FER2013's folder form has neither the rows' order
nor those names (its numbers, such as Training_63848121.jpg, are random), so votes cannot be joined to it.

Label, as in the `majority` mode of that repository's src/ferplus.py: emotions with a single vote are struck out;
the first emotion with the most votes is the label if it has more than half of what is left. Where there is no such
majority, or it is for unknown or NF (not a face), the image is dropped: here, rejected with that reason. A row without
an image name is NF too, as in src/generate_training_data.py. The votes are kept as they are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fer_jax.data.dataset import EMOTIONS, SPLITS
from fer_jax.data.files import fingerprint, open_members, printable
from fer_jax.data.readers import cuts, fer2013
from fer_jax.data.readers.sources import refuse
from fer_jax.data.readers.tables import Table, read_header
from fer_jax.data.records import Candidate, PixelText, ReaderOptions, Reject, Source
from fer_jax.errors import UserError

VOTES_FILE = 'fer2013new.csv'
# The columns of the file, and so of `votes`; the first eight are emotions.
VOTES = ('neutral', 'happiness', 'surprise', 'sadness', 'anger', 'disgust', 'fear', 'contempt', 'unknown', 'NF')

_NO_EMOTIONS = {'unknown': 'the majority says unknown', 'NF': 'the majority says NF (not a face)'}


@contextlib.contextmanager
def open_source(path: Path, options: ReaderOptions) -> Iterator[Source]:
    """FER2013's table with FER+ labels and, as `numbers['votes']`, the votes (float32 [10], in the order of VOTES).

    Raises:
        UserError: as FER2013's reader; if the votes are missing or do not fit the table's rows; from `read`, if a row's
            Usage differs.
    """
    refuse(options, 'FER+', classes='drop or merge classes with config.data.drop and config.data.rename')
    path = Path(path)
    votes = options.votes or _beside(path)
    with fer2013.open_source(path, ReaderOptions()) as faces, open_members(Path(votes)) as members:
        first = next((record for record in faces.read() if isinstance(record, Candidate)), None)
        if first is not None and not isinstance(first.picture, PixelText):
            raise UserError(
                f'FER+ needs fer2013.csv (or icml_face_data.csv), not {faces.form}: its votes belong to rows of that '
                'table, and the numbers in the names of the folder form do not tell the row'
            )
        table = read_header(members[0])
        missing = [name for name in ('usage', 'image name', *map(str.lower, VOTES)) if name not in table.columns]
        if missing:
            raise UserError(f"{printable(votes)} lacks the column {missing[0]}; it should be FER+'s {VOTES_FILE}")
        rows = sum(1 for _ in table.rows({}))
        if rows != faces.total:
            raise UserError(
                f'{printable(votes)} has {rows:,} rows and {faces.form} has {faces.total:,}; all of both are needed'
            )
        source = dataclasses.replace(
            faces,
            form=f'{faces.form} with the votes of {table.member.name} (label: more than half of the votes)',
            class_names=EMOTIONS,
            skipped=tuple(name for name in faces.skipped if name.rsplit('/', 1)[-1].lower() != VOTES_FILE)
            + table.blank_lines(),
            fingerprint=functools.partial(_fingerprint, faces, Path(votes)),
            read=functools.partial(_read, faces, table),
        )
        yield cuts.cut_anew(source, SPLITS, options.split, options.seed)


def majority(votes: Sequence[int]) -> str:
    """The emotion that the votes give by the rule above.

    Raises:
        ValueError: if they give none, with the reason.
    """
    left = [count if count > 1 else 0 for count in votes]
    most = max(left)
    if 2 * most <= sum(left):
        raise ValueError('no emotion has more than half of the votes')
    name = VOTES[left.index(most)]
    if name in _NO_EMOTIONS:
        raise ValueError(_NO_EMOTIONS[name])
    return name


def _beside(path: Path) -> Path:
    """The votes in the directory that was given, or beside the file that was given."""
    folder = path if path.is_dir() else path.parent
    found = sorted(file for file in folder.glob('*.csv') if file.name.lower() == VOTES_FILE)
    if not found:
        raise UserError(f'FER+ needs its votes: --votes={VOTES_FILE} of https://github.com/microsoft/FERPlus')
    return found[0]


def _fingerprint(faces: Source, votes: Path) -> tuple[str, int]:
    parts = [faces.fingerprint(), fingerprint(votes, ())]
    return hashlib.sha256(''.join(digest for digest, _ in parts).encode()).hexdigest(), sum(size for _, size in parts)


def _read(faces: Source, table: Table) -> Iterator[Candidate | Reject]:
    wanted = {name: table.columns.index(name.lower()) for name in ('usage', 'image name', *VOTES)}
    for record, (number, cells) in zip(faces.read(), table.rows(wanted), strict=True):
        if isinstance(record, Reject):
            yield record
            continue
        place = f'{table.member.name}:{number}'
        try:
            if isinstance(cells, str):
                raise ValueError(cells)
            if fer2013.SPLIT_OF_USAGE.get(cells['usage'].lower()) != record.split:
                raise UserError(
                    f'{place} has Usage {cells["usage"][:20]!r}, {record.location} is in {record.split}: the rows do '
                    f'not belong together; take {VOTES_FILE} and fer2013.csv whole and in their own order'
                )
            votes = _parse_votes([cells[name] for name in VOTES])
            if not cells['image name']:
                raise ValueError(_NO_EMOTIONS['NF'])
            emotion = majority(votes)
        except ValueError as error:
            yield Reject(record.location, f'{place}: {error}')
        else:
            numbers = {**record.numbers, 'votes': np.array(votes, np.float32)}
            yield dataclasses.replace(record, emotion=emotion, numbers=numbers)


def _parse_votes(cells: Sequence[str]) -> list[int]:
    for cell in cells:
        if not (cell.isascii() and cell.isdecimal() and len(cell) < 4):
            raise ValueError(f'{cell[:20]!r} is not a number of votes')
    return [int(cell) for cell in cells]
