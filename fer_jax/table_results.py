"""What the runs of a table's rows say, as the markdown that `reproduce` prints."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax import rehearsal
from fer_jax.data.change_files import read_rows
from fer_jax.evaluation.filtered import filtered_accuracy
from fer_jax.evaluation.folds import training_seconds
from fer_jax.evaluation.predictions import load_predictions
from fer_jax.reports.effects import Effect, effects_table
from fer_jax.reports.tables import FoldRow, Row, folds_results_table, results_table
from fer_jax.runs import read_description, read_scores_if_any
from fer_jax.table import Table
from fer_jax.tables import Job

Run = Callable[[Sequence[str]], None]


def in_markdown(
    table: Table,
    of_row: Sequence[Sequence[Job]],
    output: Path,
    flag: str,
    rehearse: bool = False,
    run: Run | None = None,
) -> str:
    """The table of the rows, and of their effects where rows have a baseline.

    Args:
        of_row: the jobs of every row to show.
        output: where the runs of the table live.
        flag: that names the table in commands.
        rehearse: whether to mark everything as no result.
        run: runs a module with its flags, to score pooled members that are not scored yet; None leaves them out.
    """
    of_row = [jobs for jobs in of_row if jobs]
    rows = [_read_row(jobs, output, flag, run) for jobs in of_row]
    effects = _read_effects(of_row)
    title, notes = table.title, f'{wrapped(table.notes, 120)}\n\n' * bool(table.notes)
    if rehearse:
        title = f'{rehearsal.NOT_A_RESULT}: {title}'
        notes = (
            'A few steps on a few pictures, to see that every command of the table works. The numbers mean nothing.\n\n'
        )
        marked = [f'{rehearsal.NOT_A_RESULT}: {row.name}' for row in rows]
        bare = {'published': None, 'source': '', 'command': ''}
        rows = [dataclasses.replace(row, name=name, **bare) for row, name in zip(rows, marked, strict=True)]
        effects = [dataclasses.replace(effect, name=f'{rehearsal.NOT_A_RESULT}: {effect.name}') for effect in effects]
    runs = [row for row in rows if isinstance(row, Row)]
    folds = [row for row in rows if isinstance(row, FoldRow)]
    parts = [f'## Effects\n\n{effects_table(effects)}'] * bool(effects)
    parts += [results_table(runs)] * bool(runs) + [folds_results_table(folds)] * bool(folds)
    return f'# {title}\n\n' + notes + '\n'.join(parts)


def wrapped(text: str, width: int, first: str = '', others: str = '') -> str:
    """A paragraph in lines, whatever its line breaks were."""
    words = ' '.join(text.split())
    how = {'break_long_words': False, 'break_on_hyphens': False}
    return textwrap.fill(words, width, initial_indent=first, subsequent_indent=others, **how)


def _read_row(jobs: Sequence[Job], output: Path, flag: str, run: Run | None) -> Row | FoldRow:
    row, found = jobs[0].row, {job: job.results() for job in jobs}
    done = [job for job in jobs if found[job]]
    runs = [workdir for job in done for workdir in job.runs()]
    described = [read_description(workdir) for workdir in runs]
    devices = {f'{entry["devices"]["count"]} x {entry["devices"]["kind"]}' for entry in described}
    seeds = list(dict.fromkeys(job.seed for job in done))
    about = {
        'name': row.name,
        'seeds': seeds,
        'published': row.published,
        'source': row.source,
        'seconds': sum(map(training_seconds, runs)) if runs else None,
        'device': ', '.join(sorted(devices)),
        'manifest': ', '.join(sorted({entry['manifest_hash'] for entry in described})),
        'command': f'python -m fer_jax.reproduce {flag} --rows={_quoted(row.name)}',
    }
    if row.fold_by:
        results = {by: [found[job][row.read] for job in done if job.by == by] for by in row.fold_by}
        return FoldRow(results=results, folds=jobs[0].config().data.folds, **about)
    if row.read == 'pooled':
        pooled = _pooled(done, output, run) if done else {}
        scores, part = [pooled] if pooled else [], 'ensemble'
    else:
        scores, part = [found[job] for job in done], row.read
    read = {
        split: [entry[split][part]['accuracy'] for entry in scores if split in entry]
        for split in ('validation', 'test')
    }
    return Row(accuracies=read, split=row.split, **about)


def _quoted(name: str) -> str:
    return f'"{name}"' if "'" in name else f"'{name}'"


def _pooled(jobs: Sequence[Job], output: Path, run: Run | None) -> dict[str, Any]:
    """Scores of all seeds' members in one ensemble; made once for the same members."""
    settings, found = jobs[0].config().evaluation, [job.results() for job in jobs]
    splits, last = settings.splits, min(jobs[0].row.last or settings.last, settings.last)
    name = [jobs[0].workdir.parent.name, f'last{last}', *(str(job.seed) for job in jobs)]
    pooled = output / 'pooled' / '_'.join(name)

    def complete():
        there = read_scores_if_any(pooled)
        return all(_same_members(there.get(split, {}), [scores[split] for scores in found], last) for split in splits)

    if run and not complete():
        runs = ','.join(str(job.workdir) for job in jobs)
        for split in splits:
            how = [f'--last={last}', f'--tta={settings.tta}', f'--output={pooled}']
            run(['fer_jax.evaluate', f'--runs={runs}', f'--split={split}', *how])
    return read_scores_if_any(pooled) if complete() else {}


def _same_members(pooled: Mapping[str, Any], scores: Sequence[Mapping[str, Any]], last: int) -> bool:
    """Whether an ensemble is of the last members of these runs, as they are now, and read as they are.

    A run that was trained anew has the same steps; by its accuracies it is known. Members that are computed together
    may be rounded otherwise, which moves an image or two.
    """
    there, wanted = pooled.get('members', []), [member for of_run in scores for member in of_run['members'][-last:]]
    return (
        [member['step'] for member in there] == [member['step'] for member in wanted]
        and {pooled['tta'], pooled['manifest']} == {of_run[name] for of_run in scores for name in ('tta', 'manifest')}
        and np.allclose(*([member['accuracy'] for member in members] for members in (there, wanted)), atol=1e-3)
    )


def _read_effects(of_row: Sequence[Sequence[Job]]) -> list[Effect]:
    """Of the rows that have baselines or are one, in their order; of two rows, only seeds that both have finished."""
    by_name = {jobs[0].row.name: jobs for jobs in of_row}
    named = {name for jobs in of_row for name in jobs[0].row.baselines}
    effects = []
    for name, jobs in by_name.items():
        row = jobs[0].row
        if name not in named and not row.baselines:
            continue
        accuracies = {job.seed: job.results()[row.split][row.read]['accuracy'] for job in jobs if job.results()}
        done = [job for job in jobs if job.seed in accuracies]
        about = {'split': row.split, **_training_images(done), **_filtered(done)}
        for place, base in enumerate(row.baselines or ('',)):
            others = {job.seed: job.results() for job in by_name.get(base, ())}
            pairs = [
                (ours, others[seed][row.split][row.read]['accuracy'])
                for seed, ours in accuracies.items()
                if others.get(seed)
            ]
            differences = [ours - theirs for ours, theirs in pairs]
            shown = {'accuracies': list(accuracies.values()), **about} if not place else {}
            effects.append(Effect(name, base, differences, **shown))
    return effects


def _training_images(jobs: Sequence[Job]) -> dict[str, list[int]]:
    """How many images each run was trained on, without which and with which more."""
    manifests = [read_description(job.workdir)['manifest'] for job in jobs]
    changes = [manifest.get('changes', {}) for manifest in manifests]
    told = {
        'trained_on': [sum(manifest['counts']['train'].values()) for manifest in manifests],
        'left_out': [of['exclude']['left_out'] for of in changes if 'exclude' in of],
        'wrong': [of['exclude'].get('left_out_wrong') for of in changes if 'exclude' in of],
        'added': [of['extra']['added'] for of in changes if 'extra' in of],
    }
    return {name: [] if None in values else values for name, values in told.items()}


def _filtered(jobs: Sequence[Job]) -> dict[str, list[float]]:
    """Validation accuracy on all of it and on what an audit leaves of it, for the rows that say by which audit."""
    told: dict[str, list[float]] = {'honest': [], 'filtered': [], 'kept': []}
    for job in jobs:
        scores = job.results().get('validation')
        if scores:
            told['honest'].append(scores[job.row.read]['accuracy'])
        if scores and job.filtered and Path(job.filtered).exists():
            rows = read_rows(job.filtered, f'row {job.row.name!r}', ('id', 'flag')).rows
            predictions = load_predictions(job.workdir / 'predictions' / 'validation.npz')
            member = scores['single']['index'] if job.row.read == 'single' else None
            flagged = {cells['id'] for _, cells in rows if cells['flag'] == '1'}
            accuracy, kept = filtered_accuracy(predictions, flagged, member)
            told['filtered'].append(accuracy)
            told['kept'].append(kept)
    return told
