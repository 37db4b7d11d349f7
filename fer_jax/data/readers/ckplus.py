"""CK+ (Lucey et al. 2010) in its three forms: CK+48 folders, ckextended.csv, the original release.

1. `CK+48/anger/S010_004_00000017.png`: subject S010, sequence S010_004, frame 17 (three last frames of each sequence).
2. `ckextended.csv` (emotion,pixels,Usage; 48x48): one image of each labelled sequence and 593 neutral ones, numbered
   0 anger, 1 disgust, 2 fear, 3 happiness, 4 sadness, 5 surprise, 6 neutral, 7 contempt. It names no subjects, and its
   Usage cuts between images of the same people, so it is not followed.
3. `cohn-kanade-images/S010/004/*.png` and `Emotion/S010/004/*_emotion.txt`: the last three frames of each labelled
   sequence, numbered 1 anger, 2 contempt, 3 disgust, 4 fear, 5 happy, 6 sadness, 7 surprise.

CK+ has no splits: everything is training, and folds (config.data.folds) make the rest.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fer_jax.data.dataset import EMOTIONS
from fer_jax.data.files import Member, fingerprint, printable
from fer_jax.data.readers.emotions import canonical
from fer_jax.data.readers.npy import parse_number
from fer_jax.data.readers.sources import is_picture, names_of, open_files, picture, refuse
from fer_jax.data.readers.tables import Table, find_tables
from fer_jax.data.records import Candidate, PixelText, ReaderOptions, Reject, Source
from fer_jax.errors import UserError

SIZE = 48
FRAMES = 3  # of the end of a labelled sequence

_BY_TABLE = ('anger', 'disgust', 'fear', 'happiness', 'sadness', 'surprise', 'neutral', 'contempt')
_BY_LABEL_FILE = ('', 'anger', 'contempt', 'disgust', 'fear', 'happiness', 'sadness', 'surprise')
_WITHOUT_NEUTRAL = tuple(name for name in EMOTIONS if name != 'neutral')
_NAME = re.compile(r'(S[0-9]{3})_([0-9]{3})_([0-9]{8})(_emotion\.txt|\.[a-z]+)', re.IGNORECASE)
_COLUMNS = ('emotion', 'pixels', 'usage')
_MAX_LABEL_BYTES = 1 << 10


@contextlib.contextmanager
def open_source(path: Path, options: ReaderOptions) -> Iterator[Source]:
    """Recognises which form a directory, zip or CSV has: label files win over a table, a table over folders.

    Raises:
        UserError: if the path is missing, damaged or empty, or holds no form of CK+.
    """
    refuse(
        options,
        'CK+',
        classes='drop classes with config.data.drop',
        split='it is evaluated in folds, config.data.folds',
        votes='it is for --dataset=ferplus',
    )
    with open_files(path) as (path, members):
        labels = [member for member in members if not member.is_junk and _is_label(member)]
        tables = find_tables(members, [[name] for name in _COLUMNS])
        if len(tables) > 1:
            names = ', '.join(table.member.name for table in tables)
            raise UserError(f'{printable(path)} holds more than one table ({names}); give one of them')
        if labels:
            yield _original_source(path, members, labels)
        elif tables:
            yield _table_source(path, members, tables[0])
        elif any(_emotion_folder(member) and _matches(member) for member in members if is_picture(member)):
            yield _folder_source(path, members)
        else:
            raise UserError(
                f'{printable(path)} holds no CK+: neither anger/S010_004_00000017.png, nor a CSV of emotion, pixels '
                'and Usage, nor cohn-kanade-images/S010/004/*.png with Emotion/S010/004/*_emotion.txt'
            )


def _folder_source(path: Path, members: Sequence[Member]) -> Source:
    pictures = [member for member in members if is_picture(member)]
    return Source(
        path=path,
        form=f'folders EMOTION/SUBJECT_SEQUENCE_FRAME.png in {printable(path.name or path)}; everything is training, '
        'for folds',
        class_names=_WITHOUT_NEUTRAL,
        image_shape=None,
        total=len(pictures),
        skipped=names_of(members, pictures),
        fingerprint=functools.partial(fingerprint, path, pictures),
        read=functools.partial(_read_folder, path, pictures),
    )


def _read_folder(path: Path, pictures: Sequence[Member]) -> Iterator[Candidate | Reject]:
    taken: dict[str, str] = {}
    for member in pictures:
        try:
            emotion = _emotion_folder(member)
            if emotion not in _WITHOUT_NEUTRAL:
                raise ValueError(f'in no folder of an emotion of CK+ ({", ".join(_WITHOUT_NEUTRAL)})')
            subject, sequence, identity = _parse(member)
            if identity in taken:
                raise ValueError(f'the same frame as {taken[identity]}')
            taken[identity] = member.name
        except ValueError as error:
            yield Reject(member.name, str(error))
        else:
            yield Candidate(member.name, 'train', emotion, identity, picture(path, member), subject, sequence)


def _emotion_folder(member: Member) -> str | None:
    return canonical(member.name.split('/')[-2]) if '/' in member.name else None


def _matches(member: Member) -> bool:
    return bool(_NAME.fullmatch(member.name.rsplit('/', 1)[-1]))


def _parse(member: Member) -> tuple[str, str, str]:
    """Subject, sequence and frame, each with what it belongs to: S010, S010_004, S010_004_00000017."""
    match = _NAME.fullmatch(member.name.rsplit('/', 1)[-1])
    if not match:
        raise ValueError('no subject, sequence and frame in the file name; it is like S010_004_00000017.png')
    subject, sequence = match[1].upper(), f'{match[1].upper()}_{match[2]}'
    return subject, sequence, f'{sequence}_{match[3]}'


def _table_source(path: Path, members: Sequence[Member], table: Table) -> Source:
    wanted = {name: table.columns.index(name) for name in _COLUMNS}
    labels = collections.Counter(row if isinstance(row, str) else row['emotion'] for _, row in table.rows(wanted))
    if labels['6'] and not labels['7']:
        raise UserError(
            f'{table.member.name} has emotions to 6 only: in ckextended.csv 6 is neutral and 7 contempt, in other '
            'tables of CK+ 6 is contempt; write words (neutral, contempt) instead of the numbers'
        )
    return Source(
        path=table.member.path or path,
        form=f'the table {table.member.name}; everything is training whatever its Usage, for folds per image: it names '
        'no subjects, so folds per subject or sequence cannot be made',
        class_names=EMOTIONS,
        image_shape=(SIZE, SIZE, 1),
        total=sum(labels.values()),
        skipped=names_of(members, [table.member]) + table.blank_lines(),
        fingerprint=functools.partial(fingerprint, table.member.path or path, ()),
        read=functools.partial(_read_table, table, wanted),
    )


def _read_table(table: Table, wanted: Mapping[str, int]) -> Iterator[Candidate | Reject]:
    for row, (number, cells) in enumerate(table.rows(wanted)):
        location = f'{table.member.name}:{number}'
        if isinstance(cells, str):
            yield Reject(location, cells)
            continue
        label = cells['emotion']
        emotion = dict(zip('01234567', _BY_TABLE, strict=True)).get(label) or canonical(label)
        if emotion is None:
            yield Reject(location, f'unknown emotion {label[:20]!r}; it can be 0 to 7, or a word such as anger')
        else:
            yield Candidate(location, 'train', emotion, f'{row:05d}', PixelText(cells['pixels'], SIZE, SIZE))


def _is_label(member: Member) -> bool:
    return member.name.lower().endswith('_emotion.txt') and _matches(member)


def _original_source(path: Path, members: Sequence[Member], labels: Sequence[Member]) -> Source:
    frames = collections.defaultdict(dict)
    for member in members:
        if is_picture(member) and _matches(member):
            _, sequence, identity = _parse(member)
            frames[sequence].setdefault(identity, member)
    labelled = collections.defaultdict(list)
    for member in labels:
        labelled[_parse(member)[1]].append(member)
    last = {sequence: dict(sorted(frames[sequence].items())[-FRAMES:]) for sequence in labelled}
    used = [*labels, *(member for pictures in last.values() for member in pictures.values())]
    taken = {id(member) for member in used}
    skipped = [f'{sequence} (sequence without a label)' for sequence in sorted(set(frames) - set(labelled))]
    for sequence in sorted(labelled):
        earlier = len(frames[sequence]) - len(last[sequence])
        skipped += [f'{sequence} ({earlier} frames before the last {FRAMES})'] * (earlier > 0)
    known = {id(member) for pictures in frames.values() for member in pictures.values()}
    skipped += [member.name for member in members if id(member) not in taken | known]
    return Source(
        path=path,
        form=f'the original release in {printable(path.name or path)}: the last {FRAMES} frames of {len(labelled)} '
        'labelled sequences; everything is training, for folds; whole pictures, so give --align to cut out the faces',
        class_names=_WITHOUT_NEUTRAL,
        image_shape=None,
        total=sum(max(1, len(last[sequence])) for sequence in labelled),
        skipped=tuple(skipped),
        fingerprint=functools.partial(fingerprint, path, used),
        read=functools.partial(_read_original, path, labelled, last),
    )


def _read_original(
    path: Path, labelled: Mapping[str, Sequence[Member]], last: Mapping[str, Mapping[str, Member]]
) -> Iterator[Candidate | Reject]:
    for sequence, labels in sorted(labelled.items()):
        try:
            emotion = _read_label(labels)
        except ValueError as error:
            emotion, reason = '', str(error)
        if not last[sequence]:
            yield Reject(labels[0].name, f'there is no picture of the sequence {sequence}')
        for identity, member in last[sequence].items():
            if emotion:
                where = picture(path, member)
                yield Candidate(member.name, 'train', emotion, identity, where, sequence.split('_')[0], sequence)
            else:
                yield Reject(member.name, reason)


def _read_label(labels: Sequence[Member]) -> str:
    """The emotion in a label file such as '   3.0000000e+00'."""
    name = labels[0].name.rsplit('/', 1)[-1]
    if len(labels) > 1:
        raise ValueError(f'{len(labels)} label files for one sequence')
    try:
        value = parse_number(labels[0].read(_MAX_LABEL_BYTES).decode('latin-1').strip())
        if not value.is_integer() or not 1 <= value <= 7:
            raise ValueError(f'label {value:g} is no emotion of CK+; it can be 1 to 7')
    except ValueError as error:
        raise ValueError(f'{name}: {error}') from None
    return _BY_LABEL_FILE[int(value)]
