"""`python -m fer_jax.evaluate`: predicts with the checkpoints of one or more runs, averages, scores, reports."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax import cli, experiment, runtime
from fer_jax.data.dataset import SPLITS, Dataset
from fer_jax.data.preprocess import VIEWS
from fer_jax.errors import UserError
from fer_jax.evaluation.inference import make_predict, predict_split, stack_members
from fer_jax.evaluation.predictions import Predictions, save_predictions
from fer_jax.evaluation.scores import score_predictions, update_scores_file
from fer_jax.reports.report import write_report
from fer_jax.reports.tables import quick_table
from fer_jax.training.checkpoints import Checkpoints


def main(argv: list[str] | None = None) -> int:
    """Parses the flags and evaluates; see the module."""
    parser = cli.ArgumentParser(prog='fer_jax.evaluate', description=__doc__)
    parser.add_argument('--runs', required=True, metavar='DIR[,DIR…]', help='workdirs of training runs')
    parser.add_argument('--split', default='validation', choices=SPLITS[1:], help='which split is scored')
    parser.add_argument('--last', type=int, default=0, metavar='N', help="each run's last N members; default: its best")
    parser.add_argument('--tta', default='none', choices=tuple(VIEWS), help='test-time augmentation')
    parser.add_argument('--output', required=True, metavar='DIR', help='where predictions, scores and report go')
    flags = parser.parse_args(argv)
    if flags.last < 0:
        raise UserError(f'--last={flags.last}: a count of checkpoints is wanted, 1 or more')
    runtime.configure()
    evaluate_runs(flags.runs.split(','), [flags.split], flags.output, last=flags.last, tta=flags.tta)
    return 0


def evaluate_runs(
    workdirs: Sequence[str], splits: Sequence[str], output: str, *, last: int = 0, tta: str = 'none'
) -> dict:
    """Writes predictions, scores.json, report.md and figures of the runs' members, and prints the table.

    Validation is always predicted, since it chooses the best single member; it is scored when named.

    Args:
        workdirs: runs on the same data and classes; their networks may differ.
        splits: which are scored.
        output: directory; it may be a run's own.
        last: members per run; 0 takes the best checkpoint of each.
        tta: test-time augmentation.

    Returns:
        scores.json as written.

    Raises:
        UserError: if runs do not fit together, or have not the checkpoints asked for.
    """
    places = [os.path.abspath(workdir) for workdir in workdirs]
    for workdir, place in zip(workdirs, places, strict=True):
        if places.count(place) > 1:
            raise UserError(f'{workdir} is named twice; its members would count twice')
    members = [member for workdir in workdirs for member in _members(experiment.read_run(workdir), last)]
    groups = _group(members)
    predicted, images, dataset = {}, {}, None
    for split in dict.fromkeys(['validation', *splits]):
        predicted[split], images[split], dataset = _predict(groups, members, split, tta)
        save_predictions(os.path.join(output, 'predictions', f'{split}.npz'), predicted[split])
    for split in splits:
        scores = score_predictions(
            predicted[split], predicted['validation'], dataset=dataset.name, manifest=dataset.manifest_hash
        )
        written = update_scores_file(os.path.join(output, 'scores.json'), split, scores)
    if not os.path.exists(os.path.join(output, 'config.json')):
        summary = members[0].run.summary if len(groups) == 1 else {}
        description = experiment.describe(None, dataset, runs=list(workdirs), tta=tta, model_summary=summary)
        experiment.write_json(os.path.join(output, 'config.json'), description)
    write_report(output, images)
    print(quick_table(written))
    print(f'report: {os.path.join(output, "report.md")}   pictures: {os.path.join(output, "figures")}')
    return written


@dataclasses.dataclass(frozen=True)
class _Member:
    run: experiment.RunDescription
    step: int

    @property
    def name(self) -> str:
        return f'{os.path.basename(os.path.abspath(self.run.workdir))}@{self.step}'


def _members(run: experiment.RunDescription, last: int) -> list[_Member]:
    checkpoints = Checkpoints(run.workdir)
    if not checkpoints.steps():
        raise UserError(f'{run.workdir} has no checkpoint yet; train it first')
    if not last:
        best = checkpoints.best()
        return [_Member(run, checkpoints.steps()[-1] if best is None else best)]
    steps = checkpoints.members(last)
    if len(steps) < last:
        raise UserError(
            f'{run.workdir} keeps {len(steps)} members, {last} are asked for; take --last={len(steps)}, '
            f'or train with config.checkpoint.keep_last={last}'
        )
    return [_Member(run, step) for step in steps]


def _group(members: Sequence[_Member]) -> list[list[_Member]]:
    """Members whose parameters stack: same network, same input. Refuses runs that are not comparable."""
    first = members[0].run
    groups: dict[str, list[_Member]] = {}
    for member in members:
        run = member.run
        for what in ('class_names', 'manifest_hash'):
            if getattr(run, what) != getattr(first, what):
                raise UserError(
                    f'{run.workdir} and {first.workdir} differ in {what.replace("_", " ")}: '
                    f'{getattr(run, what)} and {getattr(first, what)}; only runs on the same data can be averaged'
                )
        key = repr((run.config.model.to_dict(), run.preprocessing, run.config.data.to_dict()))
        groups.setdefault(key, []).append(member)
    return list(groups.values())


def _predict(
    groups: list[list[_Member]], members: Sequence[_Member], split: str, tta: str
) -> tuple[Predictions, np.ndarray, Dataset]:
    logits: dict[tuple[str, int], np.ndarray] = {}
    for group in groups:
        run = group[0].run
        dataset = experiment.load_data(run.config)
        if dataset.manifest_hash != run.manifest_hash:
            raise UserError(f'{run.workdir} was trained on other data than {run.config.data.name} now holds')
        examples = dataset.splits[split]
        model = experiment.make_model(run.config, len(run.class_names))
        side, channels = run.preprocessing.input_side, run.preprocessing.channels
        target = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, side, side, channels)))
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        target = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=here), target)
        stacked = stack_members([Checkpoints(m.run.workdir).restore_model(m.step, target) for m in group])
        predict = make_predict(model, run.preprocessing, tta)
        words = f'{split}: {len(group)} x {run.config.model.name}' if sys.stderr.isatty() else None
        predicted = predict_split(predict, stacked, examples.images, run.config.evaluation.batch_size, words)
        logits |= {(m.run.workdir, m.step): predicted[index] for index, m in enumerate(group)}
    predictions = Predictions(
        ids=examples.ids,
        labels=examples.labels,
        logits=np.stack([logits[m.run.workdir, m.step] for m in members]),
        steps=np.array([m.step for m in members]),
        class_names=np.array(dataset.class_names),
        twin_in_train=np.isin(examples.pixel_hashes, dataset.splits['train'].pixel_hashes),
        member_names=np.array([m.name for m in members]),
        member_runs=np.array([m.run.workdir for m in members]),
    )
    return predictions, examples.images, dataset


if __name__ == '__main__':
    cli.run(main)
