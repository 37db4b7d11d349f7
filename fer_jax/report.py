"""`python -m fer_jax.report`: one HTML page of a workdir, or of several side by side, that opens from disk.

    python -m fer_jax.report DIR[,DIR…] [--split=validation|test] [--output=FILE.html]

The page is made from files alone: scores, predictions and metrics that are there already, so that no split is scored
anew. Faces and saliency maps of the worst mistakes are computed where data and checkpoints still are, and kept in
DIR/mistakes/SPLIT.npz; see docs/report.md.
"""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fer_jax import cli, runtime
from fer_jax.data.dataset import SPLITS, Dataset
from fer_jax.data.files import printable
from fer_jax.errors import UserError
from fer_jax.evaluation.mistakes import load_mistakes, mistakes_path, save_mistakes
from fer_jax.evaluation.paired import compare
from fer_jax.explain import explain
from fer_jax.reports.page.changes import surest, why_not_subtracted
from fer_jax.reports.page.document import MOST, refuse_other_file, write_page
from fer_jax.reports.page.mistakes import worst
from fer_jax.reports.page.workdirs import Workdir, read_workdir

_FILE = 'report.html'


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags and writes the page; see the module."""
    parser = cli.ArgumentParser(prog='fer_jax.report', description=__doc__.splitlines()[0])
    parser.add_argument('workdirs', nargs='*', metavar='DIR[,DIR…]', help='runs, evaluations, cross-validations, pairs')
    parser.add_argument('--runs', metavar='DIR[,DIR…]', help='the same, as a flag')
    parser.add_argument('--split', default='validation', choices=SPLITS[1:], help='whose predictions are shown')
    parser.add_argument('--output', type=Path, metavar='FILE.html', help='default: report.html in the one DIR, or here')
    parser.add_argument('--files-only', action='store_true', help='load no data and no network: show what is kept')
    flags = parser.parse_args(argv)
    directories = _directories(flags.workdirs, flags.runs)
    output = flags.output or (directories[0] / _FILE if len(directories) == 1 else Path(_FILE))
    refuse_other_file(output)
    letters = string.ascii_uppercase
    workdirs = [read_workdir(path, letter, flags.split) for path, letter in zip(directories, letters, strict=False)]
    _refuse_split(workdirs, flags.split)
    if not flags.files_only:
        runtime.configure()
    datasets: dict[str, Dataset] = {}
    workdirs = [_with_mistakes(workdir, workdirs, datasets, flags.files_only) for workdir in workdirs]
    write_page(output, workdirs)
    for workdir in workdirs:
        for note in filter(None, (*workdir.notes, workdir.why_no_faces)):
            print(f'{printable(workdir.directory)}: {note}')
    print(f'page: {printable(output)} ({output.stat().st_size / 1e6:.1f} MB)')
    return 0


def _directories(positional: Sequence[str], runs: str | None) -> list[Path]:
    if bool(positional) == (runs is not None):
        raise UserError('give workdirs, as DIR,DIR or as --runs=DIR,DIR')
    names = [name for word in positional or [runs] for name in word.split(',')]
    if not all(names):
        raise UserError(f'{",".join(names)}: there is an empty name between the commas')
    directories = [Path(name) for name in names]
    places = [path.resolve() for path in directories]
    for path, place in zip(directories, places, strict=True):
        if places.count(place) > 1:
            raise UserError(f'{path} is named twice')
    if len(directories) > MOST:
        raise UserError(f'{len(directories)} workdirs are too many for one page; at most {MOST}')
    return directories


def _refuse_split(workdirs: Sequence[Workdir], split: str) -> None:
    """Refuses a split that nobody has been scored on, where another has been."""
    scored = [workdir for workdir in workdirs if workdir.scores]
    if scored and not any(workdir.entry for workdir in scored):
        other = next(iter(scored[0].scores))
        raise UserError(f'{scored[0].directory} has no scores on {split}; it has some on {other}: --split={other}')


def _with_mistakes(
    workdir: Workdir, workdirs: Sequence[Workdir], datasets: dict[str, Dataset], files_only: bool
) -> Workdir:
    """The workdir with faces and maps: those that are kept, or new ones, which are kept then."""
    if workdir.answers is None:
        return workdir
    if workdir.members is None:
        return dataclasses.replace(workdir, why_no_faces='Faces are in the pages of its folds: name one of them.')
    rows = _wanted(workdir, workdirs)
    path = mistakes_path(workdir.directory, workdir.split)
    kept = load_mistakes(path)
    if kept is not None and not kept.fits(workdir.answers, workdir.members):
        kept = None
    wanted = set(workdir.answers.ids[rows].tolist())
    whole = kept is not None and kept.shown_members and wanted <= set(kept.ids.tolist())
    if not wanted or whole or kept is not None and files_only:
        return dataclasses.replace(workdir, mistakes=kept)
    if files_only:
        return workdir
    if kept is not None:  # what other pages want of it
        rows = np.flatnonzero(np.isin(workdir.answers.ids, [*wanted, *kept.ids.tolist()]))
    try:
        found, reason = explain(workdir, rows, datasets)
    except (UserError, OSError) as error:
        return dataclasses.replace(workdir, why_no_faces=f'No faces and no maps: {error}.', mistakes=kept)
    try:
        save_mistakes(path, found)
    except OSError as error:  # the page is made from files
        words = f'No faces and no maps: {path} cannot be written ({error.strerror}).'
        return dataclasses.replace(workdir, why_no_faces=words, mistakes=kept)
    print(f'{printable(path)}: {len(rows)} mistakes, {"faces" if reason else "faces and saliency maps"}')
    return dataclasses.replace(workdir, mistakes=found, why_no_faces=reason and f'Faces, but no maps: {reason}.')


def _wanted(workdir: Workdir, workdirs: Sequence[Workdir]) -> np.ndarray:
    """The rows of its mistakes that the page shows: the worst, and some of what other workdirs changed."""
    rows = [worst(workdir.answers)]
    first, *others = [of for of in workdirs if of.entry]
    for other in others:
        if workdir in (first, other) and not why_not_subtracted(first, other):
            change = compare(first.answers, other.answers)
            if workdir is first:
                rows.append(surest(first.answers, change.fixed))
            else:
                rows.append(_in_own_order(workdir, first, change.broken))
    return np.unique(np.concatenate(rows))


def _in_own_order(workdir: Workdir, first: Workdir, broken_N: np.ndarray) -> np.ndarray:
    """The surest of what it broke, as rows of its own answers instead of the first workdir's."""
    return surest(workdir.answers, np.isin(workdir.answers.ids, first.answers.ids[broken_N]))


if __name__ == '__main__':
    cli.run(main)
