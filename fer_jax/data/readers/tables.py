"""CSV files as users have them: a row is a line, columns are found by name, pictures by looking for them."""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

from fer_jax.data.files import Member
from fer_jax.errors import UserError

_DELIMITERS = (',', '\t', ';', '|')
_MAX_LINE = 1 << 16
_MAX_BYTES = 2 << 30  # AffectNet's largest table has less than half of it
LOOKED_AT = 200  # rows by which the folder of the pictures is found


@dataclasses.dataclass(frozen=True)
class Table:
    """A CSV file: its columns in lower case without spaces around them, and the character between its cells."""

    member: Member
    columns: tuple[str, ...]
    delimiter: str

    def rows(self, wanted: Mapping[str, int | None]) -> Iterator[tuple[int, dict[str, str] | str]]:
        """Line number and cells of every filled line after the header; a line that is no row comes as the reason why.

        Args:
            wanted: names for the cells and the columns they stand in; None gives ''.

        Raises:
            UserError: if the table has more than 2 GiB, or cannot be read.
        """
        if self.member.size > _MAX_BYTES:
            raise UserError(f'{self.member.name} has {self.member.size:,} bytes; a table can have {_MAX_BYTES:,}')
        lines = ((number, text) for number, text in read_lines(self.member) if text.strip())
        next(lines, None)
        for number, text in lines:
            try:
                cells = split_line(text, self.delimiter)
                if len(cells) != len(self.columns):
                    raise ValueError(f'{len(cells)} columns instead of {len(self.columns)}')
            except ValueError as error:
                yield number, str(error)
            else:
                yield number, {key: '' if at is None else cells[at].strip() for key, at in wanted.items()}

    def blank_lines(self) -> tuple[str, ...]:
        """Locations of the lines without any content."""
        return tuple(
            f'{self.member.name}:{number} (blank)' for number, text in read_lines(self.member) if not text.strip()
        )


def find_tables(members: Sequence[Member], needed: Iterable[Iterable[str]]) -> list[Table]:
    """The CSV files (and a single file that was given, whatever it is called) with a column of each group of names."""
    groups = [set(group) for group in needed]
    alone = len(members) == 1 and members[0].path is not None
    tables = []
    for member in members:
        if member.size > 0 and (alone or (not member.is_junk and member.name.lower().endswith(('.csv', '.tsv')))):
            table = read_header(member)
            if all(group.intersection(table.columns) for group in groups):
                tables.append(table)
    return tables


def read_header(member: Member) -> Table:
    """The first filled line as columns, cut at the character that gives the most of them."""
    text = next((text for _, text in read_lines(member) if text.strip()), '')
    best = Table(member, (), ',')
    for delimiter in _DELIMITERS:
        try:
            columns = tuple(cell.strip().lower() for cell in split_line(text, delimiter))
        except ValueError:
            continue
        if len(columns) > len(best.columns):
            best = Table(member, columns, delimiter)
    return best


def column(table: Table, names: Iterable[str]) -> int | None:
    """Where the first of the names stands among the columns; None if none does."""
    return next((table.columns.index(name) for name in names if name in table.columns), None)


def split_line(text: str, delimiter: str = ',') -> list[str]:
    """The cells of one line.

    Raises:
        ValueError: on a quote that is not closed or stands wrong.
    """
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        raise ValueError(f'malformed row: {error}') from None


def read_lines(member: Member) -> Iterator[tuple[int, str]]:
    """Line numbers from 1, and lines without their end.

    A row is a line, so that one stray quote cannot swallow the rest. Of a line of more than 64 KiB the rest is dropped.
    """
    try:
        with member.open() as binary, io.TextIOWrapper(binary, 'utf-8-sig', 'replace') as file:
            number = 0
            while line := file.readline(_MAX_LINE):
                number += 1
                yield number, line.rstrip('\r\n')
                while len(line) == _MAX_LINE and not line.endswith('\n'):
                    line = file.readline(_MAX_LINE)
    except Exception as error:  # a damaged zip member raises zlib.error, BadZipFile, NotImplementedError and more
        raise UserError(f'{member.name} cannot be read: {str(error) or type(error).__name__}') from None


def find_pictures(members: Iterable[Member], wanted: Iterable[str]) -> str | None:
    """The folder under which files of the wanted relative paths lie.

    Returns:
        '' or a path that ends with '/'; None if none of them is found anywhere.

    Raises:
        UserError: if two folders fit equally well.
    """
    of_file = collections.defaultdict(list)
    for path in wanted:
        of_file[path.rsplit('/', 1)[-1]].append(path)
    folders = collections.Counter(
        member.name.removesuffix(path)
        for member in members
        for path in of_file.get(member.name.rsplit('/', 1)[-1], ())
        if member.name == path or member.name.endswith('/' + path)
    )
    (first, count), second = [*folders.most_common(2), ('', 0), ('', 0)][:2] if folders else (('', 0), ('', 0))
    if count and count == second[1]:
        names = ' and '.join(sorted(folder or './' for folder in (first, second[0])))
        raise UserError(f'the pictures lie in two folders ({names}); take one of them away')
    return first if count else None
