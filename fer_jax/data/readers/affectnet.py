"""AffectNet (Mollahosseini et al. 2017) in its three forms: annotated arrays, the original tables, folders.

1. The eight-emotion release: `train_set|val_set/images/N.jpg` and `annotations/N_exp.npy`, `N_val`, `N_aro`, `N_lnd`.
2. The original release: training.csv and validation.csv beside the pictures or above them (see `affectnet_table`).
3. One folder per emotion, by name or by AffectNet's number, with or without train|val above.

Labels 8 (none), 9 (uncertain) and 10 (no face) are no emotions: such pictures are rejected with that reason.
There is no public test part: val is validation. Seed 004 cut its train_set 80/10/10 and never read val_set; the option
`split` does that, and rejects val as left out. A split of .9,0,.1 keeps val as validation and cuts a test part.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fer_jax.data.dataset import EMOTIONS
from fer_jax.data.files import Member, fingerprint, printable
from fer_jax.data.readers import affectnet_table, cuts
from fer_jax.data.readers.affectnet_labels import chosen_emotions, emotion_of, emotion_of_folder, numbers_of
from fer_jax.data.readers.folder import find_layout, read_folders
from fer_jax.data.readers.npy import read_npy
from fer_jax.data.readers.sources import SPLIT_OF_NAME, is_picture, names_of, open_files, picture, refuse
from fer_jax.data.records import Candidate, ReaderOptions, Reject, Source
from fer_jax.errors import UserError

_KINDS = ('exp', 'val', 'aro', 'lnd')


@contextlib.contextmanager
def open_source(path: Path, options: ReaderOptions) -> Iterator[Source]:
    """Recognises which form a directory, zip or table has; arrays win over tables, tables over folders.

    Raises:
        UserError: if the path is missing, damaged or empty, or holds no form of AffectNet.
    """
    refuse(options, 'AffectNet', votes='it is for --dataset=ferplus')
    emotions = chosen_emotions(options.classes)
    path = Path(path)
    is_table = path.is_file() and path.suffix.lower() == '.csv'
    with open_files(path.parent if is_table else path) as (root, members):
        tables = affectnet_table.find(members, only=path.name if is_table else '')
        entries = {} if is_table else _entries(members, SPLIT_OF_NAME.get(path.stem.lower(), 'train'))
        if any('exp' in entry.files for entry in entries.values()):
            splits = {entry.split for entry in entries.values()}
            source = _annotated_source(root, members, entries, emotions)
        elif tables:
            splits = set(tables)
            source = affectnet_table.source(root, members, tables, emotions)
        else:
            source, splits = _folder_source(root, members, emotions)
        form = source.form if emotions == EMOTIONS else f'{source.form}, classes {", ".join(emotions)}'
        yield cuts.cut_anew(dataclasses.replace(source, form=form), splits, options.split, options.seed)


@dataclasses.dataclass
class _Entry:
    """What belongs to one number of one part: files by kind ('picture' or one of _KINDS), further pictures."""

    split: str
    number: str
    files: dict[str, Member] = dataclasses.field(default_factory=dict)
    copies: list[Member] = dataclasses.field(default_factory=list)


def _entries(members: Sequence[Member], split_of_root: str) -> dict[tuple[str, str], _Entry]:
    """By folder and number. The folder above `images` names the split; where it names none it is `split_of_root`."""
    entries = {}
    for member in members:
        top, folder, file = ['', '', *member.name.rsplit('/', 2)][-3:]
        number, _, kind = file.rpartition('.')
        if folder.lower() == 'images' and is_picture(member):
            kind = 'picture'
        elif folder.lower() == 'annotations' and not member.is_junk and kind.lower() == 'npy':
            number, _, kind = number.rpartition('_')
        if kind not in ('picture', *_KINDS):
            continue
        split = SPLIT_OF_NAME.get(top.rsplit('/', 1)[-1].lower(), split_of_root)
        entry = entries.setdefault((top, number), _Entry(split, number))
        if entry.files.setdefault(kind, member) is not member and kind == 'picture':
            entry.copies.append(member)
    return {key: entry for key, entry in entries.items() if 'picture' in entry.files or 'exp' in entry.files}


def _annotated_source(
    path: Path, members: Sequence[Member], entries: Mapping[tuple[str, str], _Entry], emotions: Sequence[str]
) -> Source:
    found = collections.Counter(kind for entry in entries.values() for kind in entry.files)
    kinds = tuple(kind for kind in _KINDS if found[kind])
    used = [member for entry in entries.values() for member in (*entry.files.values(), *entry.copies)]
    parts = {entry.split for entry in entries.values()}
    return Source(
        path=path,
        form=f'images and annotations ({", ".join(kinds)}) of {" and ".join(sorted(parts))} '
        f'in {printable(path.name or path)}',
        class_names=tuple(emotions),
        image_shape=None,
        total=sum(1 + len(entry.copies) for entry in entries.values()),
        skipped=names_of(members, used),
        fingerprint=functools.partial(fingerprint, path, used),
        read=functools.partial(_read_annotated, path, list(entries.values()), kinds, tuple(emotions)),
    )


def _read_annotated(
    path: Path, entries: Sequence[_Entry], kinds: Sequence[str], emotions: Sequence[str]
) -> Iterator[Candidate | Reject]:
    taken = set()
    for entry in entries:
        main = entry.files.get('picture') or entry.files['exp']
        identity = f'{entry.split}_{entry.number}'
        try:
            if 'picture' not in entry.files:
                raise ValueError(f'there is no picture images/{entry.number}')
            if 'exp' not in entry.files:
                raise ValueError(f'there is no label annotations/{entry.number}_exp.npy')
            if identity in taken:
                raise ValueError(f'another picture is number {entry.number} of {entry.split} too')
            taken.add(identity)
            emotion = emotion_of(_read_kind(entry.files['exp']), emotions)
            numbers = numbers_of(
                {kind: _read_kind(entry.files[kind]) if kind in entry.files else None for kind in kinds[1:]}
            )
        except ValueError as error:
            yield Reject(main.name, str(error))
        else:
            where = picture(path, main)
            yield Candidate(main.name, entry.split, emotion, identity, where, numbers=numbers)
        for copy in entry.copies:
            yield Reject(copy.name, f'the same number as {entry.files["picture"].name}')


def _read_kind(member: Member) -> np.ndarray:
    try:
        return read_npy(member)
    except ValueError as error:
        raise ValueError(f'{member.name.rsplit("/", 1)[-1]}: {error}') from None


def _folder_source(path: Path, members: Sequence[Member], emotions: Sequence[str]) -> tuple[Source, set[str]]:
    pictures = [member for member in members if is_picture(member)]
    layout = find_layout(pictures)
    places = {found for found in map(layout.try_place, pictures) if found}
    if not any(_is_emotion(name) for _, name in places):
        raise UserError(
            f'{printable(path)} holds no AffectNet: neither train_set/annotations/1_exp.npy, nor training.csv with '
            'subDirectory_filePath and expression, nor folders such as train/anger'
        )
    source = Source(
        path=path,
        form=f'folders {layout.form} in {printable(path.name or path)}',
        class_names=tuple(emotions),
        image_shape=None,
        total=len(pictures),
        skipped=names_of(members, pictures),
        fingerprint=functools.partial(fingerprint, path, pictures),
        read=functools.partial(
            read_folders, path, pictures, layout, functools.partial(emotion_of_folder, emotions=tuple(emotions))
        ),
    )
    return source, {split for split, _ in places}


def _is_emotion(name: str) -> bool:
    try:
        return bool(emotion_of_folder(name, EMOTIONS))
    except ValueError:
        return False
