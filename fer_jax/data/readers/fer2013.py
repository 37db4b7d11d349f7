"""FER2013 (Goodfellow et al. 2013) in every form in use: both CSVs, the folder form, and a zip of either.

The forms hold the same faces, but the folder form stores them as JPEG: its pixels differ a little from the CSV's.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from fer_jax.data.dataset import EMOTIONS, SPLITS
from fer_jax.data.files import Member, fingerprint, open_members, printable
from fer_jax.data.readers import cuts
from fer_jax.data.readers.sources import picture, refuse
from fer_jax.data.readers.tables import read_lines, split_line
from fer_jax.data.records import Candidate, PixelText, ReaderOptions, Reject, Source
from fer_jax.errors import UserError

SIZE = 48
SPLIT_OF_USAGE = {'training': 'train', 'publictest': 'validation', 'privatetest': 'test'}
EMOTION_OF_NUMBER = dict(
    zip('0123456', ('anger', 'disgust', 'fear', 'happiness', 'sadness', 'surprise', 'neutral'), strict=True)
)
EMOTION_OF_FOLDER = {'angry': 'anger', 'happy': 'happiness', 'sad': 'sadness'} | {
    name: name for name in EMOTION_OF_NUMBER.values()
}
CLASS_NAMES = tuple(name for name in EMOTIONS if name in EMOTION_OF_NUMBER.values())

_SPLITS_OF_FOLDER = {
    'train': ('train',),
    'test': ('validation', 'test'),
    'val': ('validation',),
    'validation': ('validation',),
}
_COLUMNS = ('emotion', 'pixels', 'usage')
_PICTURES = ('.jpg', '.jpeg', '.png', '.bmp', '.pgm', '.ppm', '.tif', '.tiff')
_NAME = re.compile(r'(training|publictest|privatetest)[_-]?\S', re.IGNORECASE)


@contextlib.contextmanager
def open_source(path: Path, options: ReaderOptions) -> Iterator[Source]:
    """Recognises which form `path` has, by its content; files stay open within the context.

    A CSV wins over pictures beside it, since its pixels are the original ones.

    Raises:
        UserError: if the path is missing, damaged or empty, or holds no form of FER2013 or more than one; on an option
            that FER2013 does not have.
    """
    refuse(
        options,
        'FER2013',
        classes='drop or merge classes with config.data.drop and config.data.rename',
        votes='FER+ is --dataset=ferplus',
    )
    path = Path(path)
    with contextlib.ExitStack() as stack:
        members = stack.enter_context(open_members(path))
        tables = _tables(members)
        if path.is_dir() and not tables and not _has_pictures(members):
            zips = sorted(file for file in path.iterdir() if file.suffix.lower() == '.zip' and file.is_file())
            if len(zips) > 1:
                names = ', '.join(printable(file.name) for file in zips)
                raise UserError(f'{printable(path)} holds more than one zip ({names}); give one of them')
            if zips:
                path = zips[0]
                members = stack.enter_context(open_members(path))
                tables = _tables(members)
        if len(tables) > 1:
            names = ', '.join(member.name for member in tables)
            raise UserError(f'{printable(path)} holds more than one table ({names}); give one of them')
        if tables:
            source = _table_source(path, tables[0], members)
        elif _has_pictures(members):
            source = _folder_source(path, members)
        else:
            raise UserError(_nothing_found(path, members))
        yield cuts.cut_anew(source, SPLITS, options.split, options.seed)


def _table_source(path: Path, table: Member, members: Sequence[Member]) -> Source:
    blank, filled = [], 0
    for number, text in _lines(table):
        if text:
            filled += 1
        else:
            blank.append(f'{table.name}:{number} (blank)')
    others = tuple(member.name for member in members if member is not table)
    inside = f' in {printable(path.name)}' if table.path is None else ''
    holder = table.path or path
    return Source(
        path=holder,
        form=f'the table {table.name}{inside}',
        class_names=CLASS_NAMES,
        image_shape=(SIZE, SIZE, 1),
        total=filled - 1,
        skipped=others + tuple(blank),
        fingerprint=functools.partial(fingerprint, holder, ()),
        read=functools.partial(_read_table, table),
    )


def _read_table(table: Member) -> Iterator[Candidate | Reject]:
    lines = ((number, text) for number, text in _lines(table) if text)
    columns = _columns(next(lines)[1])
    order = [columns.index(name) for name in _COLUMNS]
    for row, (number, text) in enumerate(lines):
        location = f'{table.name}:{number}'
        try:
            cells = split_line(text)
            if len(cells) != len(columns):
                raise ValueError(f'{len(cells)} columns instead of {len(columns)}')
            emotion, pixels, usage = (cells[index].strip() for index in order)
            if emotion not in EMOTION_OF_NUMBER:
                raise ValueError(f'unknown emotion {emotion[:20]!r}; it can be 0 to 6')
            if usage.lower() not in SPLIT_OF_USAGE:
                raise ValueError(f'unknown Usage {usage[:20]!r}; it can be Training, PublicTest or PrivateTest')
        except ValueError as error:
            yield Reject(location, str(error))
        else:
            split, name = SPLIT_OF_USAGE[usage.lower()], EMOTION_OF_NUMBER[emotion]
            identity = f'{_canonical_usage(usage)}_{row:05d}'
            yield Candidate(location, split, name, identity, PixelText(pixels, SIZE, SIZE))


def _folder_source(path: Path, members: Sequence[Member]) -> Source:
    candidates = [member for member in members if _is_candidate(member)]
    return Source(
        path=path,
        form=f'the folder form (train|test/EMOTION/USAGE_NUMBER.jpg) in {printable(path.name or path)}',
        class_names=CLASS_NAMES,
        image_shape=(SIZE, SIZE, 1),
        total=len(candidates),
        skipped=tuple(member.name for member in members if not _is_candidate(member)),
        fingerprint=functools.partial(fingerprint, path, candidates),
        read=functools.partial(_read_folder, path, candidates),
    )


def _read_folder(path: Path, candidates: Sequence[Member]) -> Iterator[Candidate | Reject]:
    stems = collections.Counter(_stem(member) for member in candidates)
    taken = {}
    for member in candidates:
        try:
            split, emotion = _split_and_emotion(member.name)
            identity = _stem(member)
            if stems[identity] > 1:  # twice in the original: one face under two emotions
                identity = f'{identity}-{emotion}'
            if identity in taken:
                raise ValueError(f'the same name as {taken[identity]}')
            taken[identity] = member.name
        except ValueError as error:
            yield Reject(member.name, str(error))
        else:
            yield Candidate(member.name, split, emotion, identity, picture(path, member))


def _split_and_emotion(name: str) -> tuple[str, str]:
    *_, folder, emotion, file = ['', '', *name.split('/')]
    usage = _NAME.match(file)
    if not usage:
        raise ValueError('no usage in the file name; it starts with Training_, PublicTest_ or PrivateTest_')
    if emotion.lower() not in EMOTION_OF_FOLDER:
        raise ValueError(f'unknown emotion folder {emotion!r}; it can be {", ".join(EMOTION_OF_FOLDER)}')
    if folder.lower() not in _SPLITS_OF_FOLDER:
        raise ValueError(f'unknown split folder {folder!r}; it can be {", ".join(_SPLITS_OF_FOLDER)}')
    split = SPLIT_OF_USAGE[usage[1].lower()]
    if split not in _SPLITS_OF_FOLDER[folder.lower()]:
        raise ValueError(f'the file name says {usage[1]}, the folder {folder}')
    return split, EMOTION_OF_FOLDER[emotion.lower()]


def _tables(members: Sequence[Member]) -> list[Member]:
    only = len(members) == 1 and members[0].path is not None
    tables = []
    for member in members:
        candidate = only or (member.name.lower().endswith('.csv') and not member.is_junk and member.size > 0)
        if candidate and not set(_COLUMNS) - set(_header(member)):
            tables.append(member)
    return tables


def _has_pictures(members: Sequence[Member]) -> bool:
    return any(_in_split_folder(member) and _is_candidate(member) for member in members)


def _is_candidate(member: Member) -> bool:
    return not member.is_junk and (_in_split_folder(member) or member.name.lower().endswith(_PICTURES))


def _in_split_folder(member: Member) -> bool:
    return any(part.lower() in _SPLITS_OF_FOLDER for part in member.name.split('/')[:-1])


def _nothing_found(path: Path, members: Sequence[Member]) -> str:
    name = printable(path)
    if not any(member.size for member in members):
        return f'{name} is empty'
    tables = [member for member in members if not member.is_junk and member.name.lower().endswith('.csv')]
    if path.is_file() and len(members) == 1 and members[0].path:
        tables = list(members)
    for table in tables[:1]:
        found = _header(table)
        missing = ', '.join(column for column in _COLUMNS if column not in found)
        names = ', '.join(found)[:200]
        return f'{table.name} lacks the column {missing}; found: {names if names.isprintable() and names else "none"}'
    return (
        f'{name} holds no FER2013: neither a CSV with the columns emotion, pixels and Usage, '
        f'nor train/EMOTION/Training_1.jpg and test/EMOTION/PublicTest_1.jpg'
    )


def _header(member: Member) -> list[str]:
    return _columns(next((text for _, text in _lines(member) if text), ''))


def _columns(text: str) -> list[str]:
    try:
        return [cell.strip().lower() for cell in split_line(text)]
    except ValueError:
        return []


def _lines(table: Member) -> Iterator[tuple[int, str]]:
    return ((number, text.strip()) for number, text in read_lines(table))


def _stem(member: Member) -> str:
    return member.name.rsplit('/', 1)[-1].rsplit('.', 1)[0]


def _canonical_usage(usage: str) -> str:
    return {'training': 'Training', 'publictest': 'PublicTest', 'privatetest': 'PrivateTest'}[usage.lower()]
