"""Any folder of one folder per class, with or without a level train|val|test above (or below) the classes.

A class folder whose name means an emotion (angry, Happy, …) becomes that emotion; any other keeps its own name, so
that one can train on classes that are no emotions. Without a split level the pictures are cut 80/10/10.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from fer_jax.data.files import Member, fingerprint, folder_names, printable
from fer_jax.data.readers import cuts
from fer_jax.data.readers.emotions import class_name, in_order
from fer_jax.data.readers.sources import SPLIT_OF_NAME, is_picture, names_of, open_files, picture, refuse
from fer_jax.data.records import Candidate, ReaderOptions, Reject, Source
from fer_jax.errors import UserError


@contextlib.contextmanager
def open_source(path: Path, options: ReaderOptions) -> Iterator[Source]:
    """Recognises the levels of a folder or zip of pictures.

    Raises:
        UserError: if the path is missing, damaged or empty, or holds fewer than two classes.
    """
    refuse(
        options,
        'a folder of classes',
        classes='drop or merge classes with config.data.drop and config.data.rename',
        votes='it is for --dataset=ferplus',
    )
    with open_files(path) as (path, members):
        pictures = [member for member in members if is_picture(member)]
        layout = find_layout(pictures)
        places = {found for found in map(layout.try_place, pictures) if found}
        class_names = in_order(name for _, name in places)
        empty = _without_pictures(layout, pictures, folder_names(path))
        if len(class_names) < 2:
            found = (f'only {class_names[0]}' if class_names else 'none') + ''.join(f'; {remark}' for remark in empty)
            raise UserError(
                f'{printable(path)} is no folder of classes: it needs CLASS/picture.jpg or train/CLASS/picture.jpg '
                f'of two classes or more; found: {found}'
            )
        source = Source(
            path=path,
            form=f'folders {layout.form} in {printable(path.name or path)}',
            class_names=class_names,
            image_shape=None,
            total=len(pictures),
            skipped=names_of(members, pictures),
            fingerprint=functools.partial(fingerprint, path, pictures),
            read=functools.partial(read_folders, path, pictures, layout, class_name),
            remarks=empty,
        )
        shares = options.split or (() if layout.has_splits else cuts.DEFAULT_SHARES)
        yield cuts.cut_anew(source, {split for split, _ in places}, shares, options.seed)


@dataclasses.dataclass(frozen=True)
class Layout:
    """At which depth of folders, counted from 0, the class and the split stand (`split_at` -1: there is no split)."""

    class_at: int
    split_at: int = -1

    @property
    def has_splits(self) -> bool:
        return self.split_at >= 0

    @property
    def top(self) -> int:
        """How many folders lie above all others and mean nothing."""
        return min(self.class_at, self.split_at) if self.has_splits else self.class_at

    @property
    def form(self) -> str:
        """The levels in words."""
        if not self.has_splits:
            return 'CLASS/picture'
        return 'SPLIT/CLASS/picture' if self.split_at < self.class_at else 'CLASS/SPLIT/picture'

    def place(self, member: Member) -> tuple[str, str]:
        """Split ('train' without a split level) and the class folder's name.

        Raises:
            ValueError: if the picture does not lie where it should.
        """
        folders = member.name.split('/')[:-1]
        if self.has_splits and len(folders) > self.split_at:
            split = SPLIT_OF_NAME.get(folders[self.split_at].lower())
            if split is None:
                raise ValueError(f'unknown split folder {folders[self.split_at]!r}; it can be train, val or test')
        else:
            split = 'train'
        if len(folders) <= max(self.class_at, self.split_at):
            raise ValueError('in no class folder' if len(folders) <= self.class_at else 'in no split folder')
        if not folders[self.class_at].strip():
            raise ValueError('its class folder has no name')
        return split, folders[self.class_at]

    def try_place(self, member: Member) -> tuple[str, str] | None:
        """Split and class name; None if the picture does not lie where it should."""
        try:
            split, name = self.place(member)
        except ValueError:
            return None
        return split, class_name(name)


def find_layout(pictures: Sequence[Member]) -> Layout:
    """Goes down while all pictures lie in one folder, until folders named as splits, or several folders, are met.

    A level is one of splits if at least half of what lies deeper lies under names of splits.
    """
    folders = [tuple(member.name.split('/')[:-1]) for member in pictures]
    level = 0
    while True:
        names = [parts[level] for parts in folders if len(parts) > level]
        if _mostly_splits([parts[level] for parts in folders if len(parts) > level + 1]):
            return Layout(class_at=level + 1, split_at=level)
        deeper = any(len(parts) > level + 1 for parts in folders)
        if len(set(names)) != 1 or not deeper:
            break
        level += 1
    below = [parts[level + 1] for parts in folders if len(parts) > level + 1]
    if 2 * len(below) >= len(names) and _mostly_splits(below):
        return Layout(class_at=level, split_at=level + 1)
    return Layout(class_at=level)


def _without_pictures(layout: Layout, pictures: Sequence[Member], folders: Iterable[str]) -> tuple[str, ...]:
    """Words on the class folders in which there is no picture; those of which nothing is known are none."""
    deep = layout.class_at + 1
    filled = {tuple(member.name.split('/')[:-1][:deep]) for member in pictures}
    above = {parts[: layout.top] for parts in filled if len(parts) == deep}
    found = []
    for name in sorted(folders):
        parts = tuple(name.split('/'))
        known = len(parts) == deep and parts[: layout.top] in above and not Member(name, 0, None).is_junk
        if known and layout.has_splits and layout.split_at < layout.class_at:
            known = parts[layout.split_at].lower() in SPLIT_OF_NAME
        if known and parts not in filled:
            found.append('/'.join(parts[layout.top :]))
    more = f' and {len(found) - 5} more' if len(found) > 5 else ''
    return (f'there is no picture in {", ".join(found[:5])}{more}',) if found else ()


def _mostly_splits(names: Sequence[str]) -> bool:
    return bool(names) and 2 * sum(name.lower() in SPLIT_OF_NAME for name in names) >= len(names)


def read_folders(
    path: Path, pictures: Sequence[Member], layout: Layout, class_of: Callable[[str], str]
) -> Iterator[Candidate | Reject]:
    """A candidate for every picture that lies where it should; its id is its path below the folders that mean nothing.

    Args:
        path: the zip, if the pictures lie in one.
        class_of: from a folder's name to the class; a ValueError says why there is none.
    """
    taken = set()
    for member in pictures:
        try:
            split, name = layout.place(member)
            emotion = class_of(name)
            identity = '/'.join(member.name.split('/')[layout.top :])
            if identity in taken:
                raise ValueError('the same name as another file of the zip')
            taken.add(identity)
        except ValueError as error:
            yield Reject(member.name, str(error))
        else:
            yield Candidate(member.name, split, emotion, identity, picture(path, member))
