"""Finds the faces in pictures and films and reads them: drawn, as JSON lines and as CSV.

    python -m fer_jax.predict PATH… --run=DIR[,DIR…] [--output=DIR]

PATH is a picture, a film, a folder of them or a pattern. A call that was stopped goes on when it is given again. Exit
code 0: all was read; 3: some inputs were rejected (rejects.csv says why). What is written: docs/predict.md.
"""

from __future__ import annotations

import argparse
import collections
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from fer_jax import cli, experiment, runtime
from fer_jax.apps import film
from fer_jax.apps.inputs import Input, find_inputs
from fer_jax.apps.reading import FilmOptions, read_film, read_pictures
from fer_jax.apps.records import Journal
from fer_jax.data.files import printable
from fer_jax.data.preprocess import VIEWS
from fer_jax.errors import UserError
from fer_jax.recognizer import Recognizer

REJECTED = 3
_SHOWN = 20  # pictures, up to which each gets a line of its own


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags and predicts; see the module."""
    parser = cli.ArgumentParser(prog='python -m fer_jax.predict', description='Reads the faces in pictures and films.')
    add = parser.add_argument
    add('paths', nargs='+', metavar='PATH', help='a picture, a film, a folder of them or a pattern')
    add('--run', required=True, metavar='DIR[,DIR…]', help='workdirs of training runs, averaged')
    add('--last', type=int, default=0, metavar='N', help="each run's last N members; default: its best")
    add('--tta', default='none', choices=tuple(VIEWS), help='test-time augmentation')
    add('--output', type=Path, default=Path('predicted'), metavar='DIR', help='where it goes (default: predicted)')
    add('--overwrite', action='store_true', help='replace what an earlier call has put there')
    add('--threshold', type=float, default=0.5, metavar='P', help='under this probability an emotion is unsure (0.5)')
    add('--portraits', action='store_true', help='each picture shows one face, which is looked for harder')
    add('--min-face', type=float, default=20, metavar='N', help='side in pixels of the smallest face (20)')
    add('--landmarks', type=Path, metavar='PATH', help="dlib's predictor, for runs whose data was aligned by dlib")
    add('--saliency', action='store_true', help='a picture for each face of where its emotion was seen (Grad-CAM)')
    add('--no-draw', action='store_true', help='write JSON and CSV alone')
    add('--every', type=int, default=1, metavar='N', help='of films look at every Nth frame (1)')
    add('--smoothing', type=float, default=0.5, metavar='S', help='of films: time constant in seconds (0.5)')
    flags = parser.parse_args(argv)
    _check(flags)
    try:
        return predict(flags)
    except KeyboardInterrupt:
        print('fer_jax.predict: interrupted; the same command goes on from here', file=sys.stderr)
        return 130


def predict(flags: argparse.Namespace) -> int:
    """Reads what the flags name and writes what was found; returns the exit code."""
    inputs, skipped = find_inputs(flags.paths, flags.output)
    if any(source.is_film for source in inputs):
        film.check_installed()
    runtime.configure()
    recognizer = Recognizer(
        flags.run.split(','),
        last=flags.last,
        tta=flags.tta,
        threshold=flags.threshold,
        portraits=flags.portraits,
        min_face=flags.min_face,
        landmarks=flags.landmarks,
        saliency=flags.saliency,
    )
    with Journal(flags.output, _settings(flags, recognizer), inputs, flags.overwrite) as journal:
        left = [source for source in inputs if not journal.is_done(source)]
        if len(left) < len(inputs):
            print(f'Going on: {len(inputs) - len(left):,} of {len(inputs):,} are done already')
        counts = _read(left, recognizer, journal, flags)
        journal.write_tables(recognizer.class_names)
    _report(inputs, left, skipped, counts, flags.output)
    return REJECTED if counts['rejected'] else 0


def _read(
    left: Sequence[Input], recognizer: Recognizer, journal: Journal, flags: argparse.Namespace
) -> collections.Counter:
    """Reads the inputs into the journal; counts what was read and rejected, faces, and emotions by name."""
    counts = collections.Counter()
    draw = not flags.no_draw
    options = FilmOptions(flags.every, flags.smoothing, flags.threshold)
    with tqdm(
        total=len(left), desc='reading', unit=' files', file=sys.stderr, disable=None, delay=2, leave=False
    ) as bar:
        pictures = read_pictures([source for source in left if not source.is_film], recognizer, journal, draw)
        films = (read_film(source, recognizer, journal, draw, options) for source in left if source.is_film)
        for results in (pictures, films):
            for result in results:
                counts['rejected' if result.reason else 'film' if result.source.is_film else 'picture'] += 1
                counts['faces'] += sum(result.emotions.values())
                counts.update({('emotion', name): count for name, count in result.emotions.items()})
                if len(left) <= _SHOWN or result.reason:
                    tqdm.write(
                        f'{result.source.name}: {result.words}', file=sys.stderr if result.reason else sys.stdout
                    )
                bar.update()
    return counts


def _report(
    inputs: Sequence[Input],
    left: Sequence[Input],
    skipped: Sequence[str],
    counts: collections.Counter,
    output: Path,
) -> None:
    read = counts['picture'] + counts['film']
    films = f' ({counts["film"]:,} of them films)' if counts['film'] else ''
    done = f', {len(inputs) - len(left):,} done before' if len(left) < len(inputs) else ''
    print(f'Files: {len(inputs):,}, read {read:,}{films}, rejected {counts["rejected"]:,}{done}')
    if skipped:
        shown = ', '.join(skipped[:3]) + (', …' if len(skipped) > 3 else '')
        print(f'Skipped {len(skipped):,} that are neither picture nor film ({shown})')
    emotions = sorted(((key[1], count) for key, count in counts.items() if isinstance(key, tuple)), key=lambda e: -e[1])
    said = ', '.join(f'{name} {count:,}' for name, count in emotions)
    print(f'Faces: {counts["faces"]:,}' + (f' ({said})' if said else ''))
    print(f'Wrote {printable(output)}: faces.jsonl, faces.csv, rejects.csv')


def _settings(flags: argparse.Namespace, recognizer: Recognizer) -> dict:
    """What the results depend on besides the inputs."""
    names = ('last', 'tta', 'threshold', 'portraits', 'min_face', 'saliency', 'no_draw', 'every', 'smoothing')
    runs = [experiment.read_run(workdir) for workdir in flags.run.split(',')]
    return {
        'runs': [{'workdir': printable(run.workdir), 'manifest_hash': run.manifest_hash} for run in runs],
        'members': list(recognizer.members),
        'class_names': list(recognizer.class_names),
        **{name: getattr(flags, name) for name in names},
    }


def _check(flags: argparse.Namespace) -> None:
    if not all(flags.run.split(',')):
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


if __name__ == '__main__':
    cli.run(main)
