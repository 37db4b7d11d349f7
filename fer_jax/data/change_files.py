"""Files that change the training split: their rows with line numbers, their hashes, and what was made of them.

What changed a data set stands in its manifest under `changes`, by kind (`noise`, `exclude`, `extra`): the `files` with
their SHA-256, and counts. It is no part of `Dataset.manifest_hash`, since the evaluation images are the same ones.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fer_jax.data.dataset import Dataset, Split
from fer_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Rows:
    """A CSV file as read.

    Attributes:
        path: as it was named.
        columns: of the header.
        rows: line number and cells by column of every filled line.
        sha256: of the file.
    """

    path: str
    columns: tuple[str, ...]
    rows: list[tuple[int, dict[str, str]]]
    sha256: str

    def described(self) -> dict[str, Any]:
        """For the manifest."""
        return {'file': self.path, 'sha256': self.sha256, 'rows': len(self.rows)}


def read_rows(path: str, field: str, *needed: Sequence[str]) -> Rows:
    """Reads a CSV file.

    Args:
        field: that names it, for messages, such as `config.data.exclude`.
        needed: sets of columns, one of which the file has to have.

    Raises:
        UserError: if it is not there, has other columns, or a line has more or fewer cells than the header.
    """
    if not Path(path).is_file():
        raise UserError(f'{field} names {path}, which is not there')
    content = Path(path).read_bytes()
    try:
        reader = csv.reader(io.StringIO(content.decode('utf-8-sig'), newline=''), strict=True)
        columns = tuple(cell.strip() for cell in next(reader, []))
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if cells]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f'{path} is no CSV file ({error})') from None
    if not any(set(names) <= set(columns) for names in needed):
        wanted = ' or '.join(','.join(names) for names in needed)
        raise UserError(f'{path} has the columns {",".join(columns) or "of no kind"}; {field} wants {wanted}')
    for number, cells in lines:
        if len(cells) != len(columns):
            raise UserError(f'{path}:{number}: {len(cells)} cells, and the header has {len(columns)}')
    rows = [(number, dict(zip(columns, cells, strict=True))) for number, cells in lines]
    return Rows(path, columns, rows, hashlib.sha256(content).hexdigest())


def class_index(name: str, class_names: Sequence[str], place: str) -> int:
    """The index of a class.

    Args:
        place: where it is named, for messages: `FILE:LINE`.

    Raises:
        UserError: if there is no such class.
    """
    if name not in class_names:
        close = difflib.get_close_matches(name, class_names, 1)
        hint = f'; did you mean {close[0]!r}?' if close else ';'
        raise UserError(f'{place}: there is no class {name!r}{hint} the classes are {", ".join(class_names)}')
    return class_names.index(name)


def with_training(dataset: Dataset, train: Split, kind: str, told: Mapping[str, Any]) -> Dataset:
    """The data set with another training split, and what changed it in its manifest."""
    changes = {**dataset.manifest.get('changes', {}), kind: dict(told)}
    return dataclasses.replace(
        dataset, splits={**dataset.splits, 'train': train}, manifest={**dataset.manifest, 'changes': changes}
    )


def changes_in_words(changes: Mapping[str, Any]) -> list[str]:
    """One line for each kind of change, with sums that can be checked."""
    lines, files = [], lambda told: f'{sum(file["rows"] for file in told["files"]):,} rows read'
    if told := changes.get('noise'):
        lines.append(
            f'label noise: {told["wrong"]:,} of {told["before"]:,} training labels made wrong ({told["kind"]}, seed '
            f'{told["seed"]})'
        )
    if told := changes.get('exclude'):
        line = (
            f'exclude: {files(told)}; {told["relabelled"]:,} training images relabelled, {told["left_out"]:,} left '
            f'out: {told["before"]:,} - {told["left_out"]:,} = {told["after"]:,}'
        )
        if told['evaluation']:
            line += f'; {told["evaluation"]:,} rows would change evaluation images, which stay as they are'
        if told['dropped']:
            line += f'; {told["dropped"]:,} rows are of classes left out anyway'
        lines.append(line)
    if told := changes.get('extra'):
        lines.append(
            f'extra: {files(told)}; {told["added"]:,} training images added: {told["before"]:,} + {told["added"]:,} = '
            f'{told["after"]:,}'
        )
    return lines


def changed_file(there: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """What differs between the `changes` of a run and those that the same configuration makes now; None: nothing."""
    for kind in dict.fromkeys([*there, *here]):
        before, now = there.get(kind, {}), here.get(kind, {})
        for old, new in zip(before.get('files', []), now.get('files', []), strict=False):
            if old['sha256'] != new['sha256']:
                return f'{new["file"]} (SHA-256 {old["sha256"][:12]} there, {new["sha256"][:12]} now)'
        if before != now:
            return f'what config.data.{kind} makes of the training images'
    return None


def rewritten_file(changes: Mapping[str, Any]) -> str | None:
    """The first file of a run's `changes` that is there with other content now."""
    for told in changes.values():
        for file in told.get('files', []):
            path = Path(file['file'])
            if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != file['sha256']:
                return file['file']
    return None
