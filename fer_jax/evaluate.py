"""`python -m fer_jax.evaluate`: predicts with the checkpoints of one or more runs, averages, scores, reports."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence

import numpy as np

from fer_jax import cli, distributed, experiment, run_json, runtime
from fer_jax.data.dataset import SPLITS, Dataset
from fer_jax.data.preprocess import VIEWS
from fer_jax.errors import UserError
from fer_jax.evaluation.inference import make_predict, predict_split
from fer_jax.evaluation.predictions import Predictions, save_predictions
from fer_jax.evaluation.scores import score_predictions, update_scores_file
from fer_jax.members import Member, choose_members, find_runs, group_members, load_group
from fer_jax.reports.report import write_report
from fer_jax.reports.tables import quick_table
from fer_jax.training.mesh import make_placement


def main(argv: list[str] | None = None) -> int:
    """Parses the flags and evaluates; see the module."""
    parser = cli.ArgumentParser(prog='fer_jax.evaluate', description=__doc__)
    parser.add_argument(
        '--runs', required=True, metavar='DIR[,DIR…]', help='workdirs of runs or ensembles, or packed models'
    )
    parser.add_argument(
        '--split', default='validation', metavar='NAME[,NAME]', help='validation (the default), test, or both'
    )
    parser.add_argument('--last', type=int, default=0, metavar='N', help="each run's last N members; default: its best")
    parser.add_argument('--tta', default='none', choices=tuple(VIEWS), help='test-time augmentation')
    parser.add_argument('--output', required=True, metavar='DIR', help='where predictions, scores and report go')
    flags = parser.parse_args(argv)
    if flags.last < 0:
        raise UserError(f'--last={flags.last}: a count of checkpoints is wanted, 1 or more')
    splits = list(dict.fromkeys(flags.split.split(',')))
    if unknown := [name for name in splits if name not in SPLITS[1:]]:
        raise UserError(f'--split={flags.split}: there is no {unknown[0]!r}; it can be validation, test, or both')
    runtime.configure()
    if not all(flags.runs.split(',')):
        raise UserError(f'--runs={flags.runs}: there is an empty name between the commas')
    evaluate_runs(flags.runs.split(','), splits, flags.output, last=flags.last, tta=flags.tta)
    return 0


def evaluate_runs(
    workdirs: Sequence[str],
    splits: Sequence[str],
    output: str,
    *,
    last: int = 0,
    tta: str = 'none',
    dataset: Dataset | None = None,
) -> dict:
    """Writes predictions, scores.json, report.md and figures of the runs' members, and prints the table.

    Validation, where the data has one, is always predicted, since it chooses the best single member; it is scored when
    named. Without one the last member is the single one.

    Args:
        workdirs: runs on the same data and classes, or ensembles of them; their networks may differ.
        splits: which are scored.
        output: directory; it may be a run's own.
        last: members per run; 0 takes the best checkpoint of each.
        tta: test-time augmentation.
        dataset: the first run's data, where the caller has it loaded.

    Returns:
        scores.json as written; in the processes besides the first, which alone writes and prints, nothing.

    Raises:
        UserError: if runs do not fit together, or have not the checkpoints asked for.
    """
    workdirs = find_runs(workdirs)
    members = [member for workdir in workdirs for member in choose_members(workdir, last)]
    groups = group_members(members, ('class_names', 'manifest_hash'), _data_key)
    _refuse_output(output, workdirs, members[0].run.manifest_hash)
    loaded = {} if dataset is None else {_data_key(members[0].run): dataset}
    predicted, read = [], tuple(splits)
    for group in groups:
        key = _data_key(group[0].run)
        if key not in loaded:
            loaded[key] = experiment.load_data(group[0].run.config)
        read = _to_read(splits, loaded[key])
        _refuse_other_images(group[0].run, loaded[key], groups[0][0].run, predicted, read)
        predicted.append(_predict_group(group, read, tta, loaded[key]))
    dataset = predicted[0].dataset
    predictions = {split: _gather(groups, predicted, members, split) for split in read}
    if not distributed.is_main():
        return {}
    for split in read:
        save_predictions(os.path.join(output, 'predictions', f'{split}.npz'), predictions[split])
    for split in splits:
        scores = score_predictions(
            predictions[split], predictions.get('validation'), dataset=dataset.name, manifest=dataset.manifest_hash
        )
        scores['tta'] = tta
        written = update_scores_file(os.path.join(output, 'scores.json'), split, scores)
    if os.path.abspath(output) not in map(os.path.abspath, workdirs):
        summary = members[0].run.summary if len(groups) == 1 else {}
        description = run_json.describe(None, dataset, runs=list(workdirs), tta=tta, model_summary=summary)
        run_json.write_json(os.path.join(output, 'config.json'), description)
    write_report(output, {split: dataset.splits[split].images for split in read})
    print(quick_table(written))
    print(f'report: {os.path.join(output, "report.md")}   pictures: {os.path.join(output, "figures")}')
    return written


def _refuse_other_images(
    run: run_json.RunDescription,
    dataset: Dataset,
    first: run_json.RunDescription,
    predicted: Sequence[_Predicted],
    read: Sequence[str],
) -> None:
    for split in read if predicted else ():
        if not np.array_equal(dataset.splits[split].ids, predicted[0].dataset.splits[split].ids):
            raise UserError(
                f'{run.workdir} and {first.workdir} hold out other images for {split}; '
                'only runs that are read on the same images can be averaged'
            )


def _to_read(splits: Sequence[str], dataset: Dataset) -> tuple[str, ...]:
    for name in splits:
        if name not in dataset.splits:
            raise UserError(f'{dataset.name} has no {name} split here; it has {", ".join(dataset.splits)}')
    return tuple(dict.fromkeys([*(['validation'] if 'validation' in dataset.splits else []), *splits]))


def _refuse_output(output: str, workdirs: Sequence[str], manifest_hash: str) -> None:
    """Refuses an output that holds another run, or an evaluation on other data: its files would speak of both."""
    path = os.path.join(output, 'config.json')
    if os.path.exists(output) and not os.path.isdir(output):
        raise UserError(f'--output={output} is a file; a directory is wanted')
    if not os.path.exists(path) or [os.path.abspath(output)] == [os.path.abspath(workdir) for workdir in workdirs]:
        return
    try:
        with open(path) as file:
            there = json.load(file)
        if there['config'] or there['manifest_hash'] != manifest_hash:
            what = 'a training run' if there['config'] else 'an evaluation on other data'
            raise UserError(f'{output} holds {what}; choose another --output')
    except (ValueError, KeyError, TypeError):
        raise UserError(f'{path} is not from an evaluation; choose another --output') from None


def _data_key(run: run_json.RunDescription) -> str:
    return repr(run.config.data.to_dict())


@dataclasses.dataclass
class _Predicted:
    """What a group of members said, by split."""

    dataset: Dataset
    logits: dict[str, np.ndarray]


def _predict_group(group: Sequence[Member], splits: Sequence[str], tta: str, dataset: Dataset) -> _Predicted:
    run = group[0].run
    if dataset.manifest_hash != run.manifest_hash:
        raise UserError(f'{run.workdir} was trained on other data than {run.config.data.name} now holds')
    placement = make_placement()
    model, stacked = load_group(group, placement.replicated)
    predict = make_predict(model, run.preprocessing, tta, run.temperature, placement=placement)
    logits = {}
    for split in splits:
        shown = sys.stderr.isatty() and distributed.is_main()
        words = f'{split}: {len(group)} x {run.config.model.name}' if shown else None
        images = dataset.splits[split].images
        logits[split] = predict_split(predict, stacked, images, run.config.evaluation.batch_size, words, placement)
    return _Predicted(dataset, logits)


def _gather(
    groups: Sequence[Sequence[Member]], predicted: Sequence[_Predicted], members: Sequence[Member], split: str
) -> Predictions:
    """The groups' logits in the members' order; a twin is one in the training split of any of the runs."""
    logits = {
        (member.run.workdir, member.step): said.logits[split][index]
        for group, said in zip(groups, predicted, strict=True)
        for index, member in enumerate(group)
    }
    examples = predicted[0].dataset.splits[split]
    in_training = np.concatenate([said.dataset.splits['train'].pixel_hashes for said in predicted])
    return Predictions(
        ids=examples.ids,
        labels=examples.labels,
        logits=np.stack([logits[m.run.workdir, m.step] for m in members]),
        steps=np.array([m.step for m in members]),
        class_names=np.array(predicted[0].dataset.class_names),
        twin_in_train=np.isin(examples.pixel_hashes, in_training),
        member_names=np.array([m.name for m in members]),
        member_runs=np.array([m.run.workdir for m in members]),
    )


if __name__ == '__main__':
    cli.run(main)
