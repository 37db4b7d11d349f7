"""What was read, in files: faces.jsonl as it comes, faces.csv and rejects.csv at the end. See docs/predict.md."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from fer_jax.apps.inputs import Input
from fer_jax.apps.recognized import RecognizedFace
from fer_jax.data.files import printable
from fer_jax.errors import UserError

SCHEMA = 1  # raised whenever a field changes its meaning or goes; new fields do not raise it
POINTS = ('left_eye', 'right_eye', 'nose', 'mouth_left', 'mouth_right')
_LINES, _SETTINGS = 'faces.jsonl', 'predict.json'
_WHOLE = ('picture', 'film')  # kinds of lines that end what is said of a source
_MADE = ('drawn', 'timelines', 'saliency', _LINES, 'faces.csv', 'rejects.csv', _SETTINGS)


def face_record(face: RecognizedFace) -> dict[str, Any]:
    """A face as JSON has it."""
    rounded = lambda values: [round(float(value), 2) for value in values]
    return {
        'box': rounded(face.box),
        'points': [rounded(point) for point in face.points],
        'score': round(face.score, 4),
        'probabilities': {name: round(share, 6) for name, share in face.probabilities.items()},
        'emotion': face.emotion,
        'emoji': face.emoji,
        'unsure': face.unsure,
    }


class Journal:
    """A folder of results that grows by whole lines; a call that was stopped goes on in it.

    Args:
        folder: it; made where it is not there.
        settings: what the results depend on (JSON).
        inputs: what is to be read; of those that have changed since what was written is dropped.
        overwrite: whether to begin anew where there are results.

    Raises:
        UserError: if the folder holds something else, or results by other settings, or another process writes there.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], inputs: Sequence[Input], overwrite: bool = False):
        self.folder = folder
        self._check(settings, overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = (folder / '.lock').open('w')
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise UserError(f'another process is writing {printable(folder)} just now') from None
        if overwrite:
            for name in _MADE:
                path = folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for name in ('drawn', 'saliency'):
            for path in folder.glob(f'{name}/**/.*.partial'):  # of a call that was killed
                path.unlink()
        _write_aside(folder / _SETTINGS, [json.dumps({'schema': SCHEMA, **settings}, indent=2, ensure_ascii=False)])
        self._done = self._keep_whole({source.name: _state(source) for source in inputs})
        self._said = set(self._done)
        self._lines = self._open_lines()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_) -> None:
        self._lines.close()
        self._lock.close()

    def _open_lines(self) -> TextIO:
        return (self.folder / _LINES).open('a', encoding='utf-8')

    def _check(self, settings: Mapping[str, Any], overwrite: bool) -> None:
        path, shown = self.folder / _SETTINGS, printable(self.folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f'--output={shown} is a file; a directory is wanted')
        if not path.exists():
            if self.folder.is_dir() and set(os.listdir(self.folder)) - {'.lock'}:
                raise UserError(f'{shown} is there and holds something else; choose another --output')
            return
        if overwrite:
            return
        try:
            there = json.loads(path.read_text(encoding='utf-8'))
            changed = [name for name, value in {'schema': SCHEMA, **settings}.items() if there.get(name) != value]
        except (ValueError, AttributeError):
            raise UserError(f'{printable(path)} cannot be read; choose another --output or give --overwrite') from None
        if changed:
            raise UserError(
                f'{shown} holds results with another {changed[0]} ({json.dumps(there.get(changed[0]))}); '
                'choose another --output or give --overwrite'
            )

    def _keep_whole(self, states: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
        """Drops what a killed call left half written, what has changed, and all rejects; returns what is done."""
        done = {}
        for line in self.lines():
            if line.get('kind') in _WHOLE:
                state = line.get('bytes'), line.get('modified')
                drawn = not line.get('drawn') or (self.folder / line['drawn']).exists()
                if drawn and states.get(line['source'], state) == state:
                    done[line['source']] = state
        # What was live cannot be read again: it stays, whole or not.
        self._keep(lambda line: 'clock' in line or line.get('kind') != 'reject' and line['source'] in done)
        return done

    def _keep(self, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
        """Drops the lines that are not wanted."""
        if (self.folder / _LINES).exists():
            _write_aside(self.folder / _LINES, (_json(line) for line in self.lines() if wanted(line)))

    def lines(self) -> Iterator[dict[str, Any]]:
        """The lines that are there, in order; a torn one is left out."""
        path = self.folder / _LINES
        if not path.exists():
            return
        with path.open(encoding='utf-8', errors='replace') as file:
            for text in file:
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                if isinstance(line, dict) and 'source' in line:
                    yield line

    def is_done(self, source: Input) -> bool:
        """Whether the same file was read already."""
        return self._done.get(source.name) == _state(source)

    def new_name(self, name: str) -> str:
        """The name of a source that is none of those which are there, and nearly this one."""
        taken = {line['source'] for line in self.lines()}
        return next(new for new in (name, *(f'{name}_{number}' for number in range(2, 10**6))) if new not in taken)

    def looks(self, name: str) -> Iterator[dict[str, Any]]:
        """A film's lines of kind `frame`."""
        return (line for line in self.lines() if line['source'] == name and line['kind'] == 'frame')

    def forget(self, sources: Sequence[Input]) -> None:
        """Drops what is written of files that are to be read again."""
        names = {source.name for source in sources} & self._said
        if names:
            self._keep(lambda line: line['source'] not in names)
            self._lines.close()
            self._lines = self._open_lines()
            self._said -= names
            self._done = {name: state for name, state in self._done.items() if name not in names}

    def add(self, *lines: Mapping[str, Any]) -> None:
        """Appends lines; they are in the system's hands when this returns."""
        self._lines.write(''.join(_json({'schema': SCHEMA, **line}) + '\n' for line in lines))
        self._lines.flush()
        self._said.update(line['source'] for line in lines)

    def write_tables(self, class_names: Sequence[str]) -> None:
        """Writes faces.csv, a row per face, and rejects.csv, out of the lines."""
        _write_csv(self.folder / 'faces.csv', face_columns(class_names), self._face_rows(class_names))
        rejects = ((line['source'], line['reason']) for line in self.lines() if line['kind'] == 'reject')
        _write_csv(self.folder / 'rejects.csv', ('source', 'reason'), rejects)

    def _face_rows(self, class_names: Sequence[str]) -> Iterator[list[Any]]:
        for line in self.lines():
            for number, face in enumerate(line.get('faces', ()), 1):
                place = [SCHEMA, line['source'], line.get('frame', ''), line.get('time', '')]
                shares = face.get('smoothed', face['probabilities'])
                yield [
                    *place,
                    number,
                    face.get('person', ''),
                    *face['box'],
                    face['score'],
                    face['emotion'],
                    face['emoji'],
                    int(face['unsure']),
                    *(shares[name] for name in class_names),
                    *(value for point in face['points'] for value in point),
                ]


def face_columns(class_names: Sequence[str]) -> list[str]:
    """The columns of faces.csv."""
    return [
        *('schema', 'source', 'frame', 'time', 'face', 'person', 'left', 'top', 'width', 'height', 'score'),
        *('emotion', 'emoji', 'unsure'),
        *(f'probability_{name}' for name in class_names),
        *(f'{point}_{axis}' for point in POINTS for axis in 'xy'),
    ]


def write_timeline(path: Path, class_names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A film's timeline: time, person, emotion, unsure and the smoothed probabilities."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = ['schema', 'time', 'person', 'emotion', 'unsure', *(f'probability_{name}' for name in class_names)]
    _write_csv(path, columns, ([SCHEMA, *row] for row in rows))


def _state(source: Input) -> tuple[int, int]:
    return source.member.size, source.modified


def _json(line: Mapping[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False)


def _write_aside(path: Path, lines: Iterable[str]) -> None:
    aside = path.with_name(path.name + '.partial')
    with aside.open('w', encoding='utf-8') as file:
        file.writelines(line + '\n' for line in lines)
    os.replace(aside, path)


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    aside = path.with_name(path.name + '.partial')
    with aside.open('w', encoding='utf-8', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    os.replace(aside, path)
