"""Finds the faces in pictures and films, of a camera or on the screen, and reads them: drawn, as JSON lines, as CSV.

    python -m fer_jax.predict PATH… [--run=DIR[,DIR…]] [--output=DIR] [--watch]
    python -m fer_jax.predict webcam|screen [--run=DIR[,DIR…]] [--output=DIR]

PATH is a picture, a film, a folder of them or a pattern. A call that was stopped goes on when it is given again; what
is live, or watched, ends by Ctrl-C, as is meant. Exit code 0: all was read; 3: some inputs were rejected (rejects.csv
says why). What is written: docs/predict.md.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from fer_jax import cli, runtime
from fer_jax.apps import film
from fer_jax.apps.inputs import Input, find_inputs
from fer_jax.apps.live import Recording, read_live
from fer_jax.apps.reading import FilmOptions, Recognize, Result, read_film, read_pictures
from fer_jax.apps.records import Journal
from fer_jax.apps.source import is_live, open_source
from fer_jax.apps.stopping import Stop, Stopped
from fer_jax.apps.view import open_view
from fer_jax.apps.watching import watch
from fer_jax.data.files import printable
from fer_jax.data.preprocess import VIEWS
from fer_jax.errors import UserError
from fer_jax.recognizer import Recognizer
from fer_jax.run_json import RunDescription

REJECTED = 3
_SHOWN = 20  # pictures, up to which each gets a line of its own


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags and predicts; see the module."""
    flags = _parser().parse_args(argv)
    live = is_live(flags.paths[0])
    flags.output = flags.output or Path('recorded' if live else 'predicted')
    flags.min_face = (40 if live else 20) if flags.min_face is None else flags.min_face
    _check(flags, live)
    try:
        return predict_live(flags) if live else predict(flags)
    except KeyboardInterrupt:
        more = '' if live else '; the same command goes on from here'
        print(f'fer_jax.predict: interrupted{more}', file=sys.stderr)
        return 130


def predict(flags: argparse.Namespace) -> int:
    """Reads the files that the flags name and writes what was found; returns the exit code."""
    inputs, skipped = find_inputs(flags.paths, flags.output, empty=flags.watch)
    if any(source.is_film for source in inputs):
        film.check_installed()
    recognizer = _load(flags)
    with Journal(flags.output, _settings(flags, recognizer), inputs, flags.overwrite) as journal:
        done = {source.name for source in inputs if journal.is_done(source)}
        if done:
            print(f'Going on: {len(done):,} of {len(inputs):,} are done already')
        if flags.watch:
            results = _watch(recognizer, journal, flags)
        else:
            left = [source for source in inputs if source.name not in done]
            results = list(_read(left, recognizer, journal, flags, len(left) <= _SHOWN))
        journal.write_tables(recognizer.class_names)
    done -= {result.source.name for result in results}
    _report(results, len(done), skipped, flags.output)
    return REJECTED if any(result.reason for result in results) else 0


def predict_live(flags: argparse.Namespace) -> int:
    """Reads a camera or a screen until it is stopped; returns the exit code."""
    with open_source(flags.paths[0]) as source:
        recognizer = _load(flags)
        settings = _settings(flags, recognizer)
        with Journal(flags.output, settings, [], flags.overwrite) as journal, contextlib.ExitStack() as stack:
            print('Compiling', flush=True)
            recognizer.warm_up()
            title = f'fer_jax: {printable(flags.paths[0])}'
            view = stack.enter_context(open_view(title, not flags.no_window, source.area))
            stop = stack.enter_context(Stop(flags.seconds))
            print('Reading; Ctrl-C ends', flush=True)
            options = FilmOptions(1, flags.smoothing, flags.threshold)
            recording = read_live(source, recognizer, journal, view, stop, options, not flags.no_draw)
            journal.write_tables(recognizer.class_names)
    _report_live(recording, flags.output)
    return 1 if recording.ended else 0


def _load(flags: argparse.Namespace) -> Recognizer:
    runtime.configure()
    return Recognizer(
        flags.run.split(',') if flags.run else (),
        last=flags.last,
        tta=flags.tta,
        threshold=flags.threshold,
        portraits=flags.portraits,
        min_face=flags.min_face,
        landmarks=flags.landmarks,
        saliency=flags.saliency,
    )


def _watch(recognizer: Recognizer, journal: Journal, flags: argparse.Namespace) -> list[Result]:
    """Reads what comes into folders until it is stopped; of what was read again the last result counts."""
    results = {}
    with Stop(flags.seconds) as stop, contextlib.suppress(Stopped):
        print('Watching; Ctrl-C ends', flush=True)
        for sources in watch(flags.paths, flags.output, stop, journal.is_done):
            if any(source.is_film for source in sources):
                film.check_installed()
            journal.forget(sources)
            for result in _read(sources, stop.guarded(recognizer), journal, flags, True):
                results[result.source.name] = result
    return list(results.values())


def _read(
    sources: Sequence[Input], recognize: Recognize, journal: Journal, flags: argparse.Namespace, each: bool
) -> Iterator[Result]:
    """Reads the inputs into the journal, pictures first; says what was found in each if that is wanted."""
    draw = not flags.no_draw
    options = FilmOptions(flags.every, flags.smoothing, flags.threshold)
    with tqdm(
        total=len(sources), desc='reading', unit=' files', file=sys.stderr, disable=None, delay=2, leave=False
    ) as bar:
        pictures = read_pictures([source for source in sources if not source.is_film], recognize, journal, draw)
        films = (read_film(source, recognize, journal, draw, options) for source in sources if source.is_film)
        for result in itertools.chain(pictures, films):
            if each or result.reason:
                out = sys.stderr if result.reason else sys.stdout
                tqdm.write(f'{result.source.name}: {result.words}', file=out)
                out.flush()
            yield result
            bar.update()


def _report_live(recording: Recording, output: Path) -> None:
    line = recording.line
    if line:
        rate = line['looks'] / max(line['seconds'], 1e-3)
        print(f'{line["source"]}: {line["looks"]:,} looks in {line["seconds"]:.1f} s ({rate:.1f} a second)')
    print(f'People: {line.get("people", 0):,} ({recording.words})')
    wrote = ['faces.jsonl', 'faces.csv', *(line[name] for name in ('timeline', 'drawn') if name in line)]
    print(f'Wrote {printable(output)}: {", ".join(wrote)}')
    if recording.ended:
        print(f'fer_jax.predict: error: {recording.ended}', file=sys.stderr)


def _report(results: Sequence[Result], done: int, skipped: Sequence[str], output: Path) -> None:
    read = [result for result in results if not result.reason]
    films = sum(result.source.is_film for result in read)
    films = f' ({films:,} of them films)' if films else ''
    before = f', {done:,} done before' if done else ''
    rejected = len(results) - len(read)
    print(f'Files: {len(results) + done:,}, read {len(read):,}{films}, rejected {rejected:,}{before}')
    if skipped:
        shown = ', '.join(skipped[:3]) + (', …' if len(skipped) > 3 else '')
        print(f'Skipped {len(skipped):,} that are neither picture nor film ({shown})')
    emotions = sum((collections.Counter(result.emotions) for result in read), collections.Counter())
    said = ', '.join(f'{name} {count:,}' for name, count in emotions.most_common())
    print(f'Faces: {emotions.total():,}' + (f' ({said})' if said else ''))
    print(f'Wrote {printable(output)}: faces.jsonl, faces.csv, rejects.csv')


def _settings(flags: argparse.Namespace, recognizer: Recognizer) -> dict:
    """What the results depend on besides the inputs."""
    names = ('last', 'threshold', 'portraits', 'min_face', 'saliency', 'no_draw', 'every', 'smoothing')
    return {
        'runs': [_which(run) for run in recognizer.runs],
        'members': list(recognizer.members),
        'class_names': list(recognizer.class_names),
        'tta': recognizer.tta,
        'landmarks': printable(flags.landmarks) if flags.landmarks else None,
        **{name: getattr(flags, name) for name in names},
    }


def _which(run: RunDescription) -> dict:
    told = {'workdir': printable(run.workdir), 'manifest_hash': run.manifest_hash}
    return told | ({'parameters': run.packed_hash, 'temperature': run.temperature} if run.packed_hash else {})


def _parser() -> cli.ArgumentParser:
    parser = cli.ArgumentParser(prog='python -m fer_jax.predict', description='Reads the faces in pictures and films.')
    add = parser.add_argument
    add('paths', nargs='+', metavar='PATH', help='a picture, a film, a folder of them or a pattern; webcam; screen')
    add('--run', metavar='DIR[,DIR…]', help='workdirs of training runs or packed models, averaged (default: our own)')
    add('--last', type=int, default=0, metavar='N', help="each run's last N members; default: its best")
    add('--tta', choices=tuple(VIEWS), help='test-time augmentation (default: as a packed model was scored, or none)')
    add('--output', type=Path, metavar='DIR', help='where it goes (predicted; of webcam and screen: recorded)')
    add('--overwrite', action='store_true', help='replace what an earlier call has put there')
    add('--threshold', type=float, default=0.5, metavar='P', help='under this probability an emotion is unsure (0.5)')
    add('--portraits', action='store_true', help='each picture shows one face, which is looked for harder')
    add('--min-face', type=float, metavar='N', help='side in pixels of the smallest face (20; of webcam and screen 40)')
    add('--landmarks', type=Path, metavar='PATH', help="dlib's predictor, for runs whose data was aligned by dlib")
    add('--saliency', action='store_true', help='a picture for each face of where its emotion was seen (Grad-CAM)')
    add('--no-draw', action='store_true', help='write JSON and CSV alone')
    add('--every', type=int, default=1, metavar='N', help='of films look at every Nth frame (1)')
    add('--smoothing', type=float, default=0.5, metavar='S', help='of films, cameras, screens: time constant (0.5 s)')
    add('--watch', action='store_true', help='read what comes into folders, too, until Ctrl-C')
    add('--seconds', type=float, default=math.inf, metavar='S', help='end webcam, screen or --watch after so long')
    add('--no-window', action='store_true', help='of webcam and screen: show lines of text instead')
    return parser


def _check(flags: argparse.Namespace, live: bool) -> None:
    _check_kind(flags, live)
    if flags.run is not None and not all(flags.run.split(',')):
        raise UserError(f'--run={flags.run}: there is an empty name between the commas')
    if flags.last < 0:
        raise UserError(f'--last={flags.last}: a count of checkpoints is wanted, 1 or more')
    if flags.every < 1:
        raise UserError(f'--every={flags.every}: a count of frames is wanted, 1 or more')
    if not 0 <= flags.threshold <= 1:
        raise UserError(f'--threshold={flags.threshold} is no probability; it can be 0 to 1')
    if not 0 <= flags.smoothing < float('inf'):
        raise UserError(f'--smoothing={flags.smoothing}: seconds are wanted, 0 or more')
    if not 12 <= flags.min_face < float('inf'):
        raise UserError(f'--min-face={flags.min_face}: the smallest face that can be found has 12 pixels')


def _check_kind(flags: argparse.Namespace, live: bool) -> None:
    """Of flags that belong to some inputs only."""
    alone = next((word for word in flags.paths if is_live(word)), '')
    if alone and len(flags.paths) > 1:
        raise UserError(f'{printable(alone)} is read by itself, without other inputs (a file of that name: ./{alone})')
    for name in ('watch', 'saliency'):
        if live and getattr(flags, name):
            raise UserError(f'--{name} is of files, not of {printable(alone)}')
    if live and flags.every != 1:
        raise UserError(f'--every is of films; of {printable(alone)} always the newest picture is read')
    if not live and flags.no_window:
        raise UserError('--no-window is of webcam and screen')
    if not live and not flags.watch and flags.seconds != math.inf:
        raise UserError('--seconds is of webcam, screen and --watch')
    if not flags.seconds > 0:
        raise UserError(f'--seconds={flags.seconds}: more than 0 is wanted')
    file = next((path for path in flags.paths if flags.watch and not os.path.isdir(os.path.expanduser(path))), None)
    if file is not None:
        raise UserError(f'--watch wants folders that are there; {printable(file)} is none')


if __name__ == '__main__':
    cli.run(main)
