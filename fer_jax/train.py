"""`python -m fer_jax.train`: trains what a configuration describes, then evaluates it and writes its report."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import os
import sys
from collections.abc import Callable, Iterator

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from fer_jax import cli, evaluate, experiment, runtime
from fer_jax.config import flatten, load_config
from fer_jax.data.dataset import SPLITS, Dataset
from fer_jax.data.feed import put_resident
from fer_jax.data.preprocess import VIEWS, Preprocessing
from fer_jax.errors import UserError
from fer_jax.evaluation import inference
from fer_jax.evaluation.scores import confusion_matrix, negative_log_likelihood, per_class_scores, read_scores, softmax
from fer_jax.training import classify
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.dispatch import make_advance, steps_per_dispatch
from fer_jax.training.loop import Hooks, LoopOptions, Stopped, run_loop
from fer_jax.training.mesh import Placement, make_placement
from fer_jax.training.optimizer import OptimizerOptions, ScheduleOptions, make_optimizer, make_plateau, make_schedule

# Names, what fits, and what to say of what does not.
_RANGES = (
    (
        'train.batch_size train.max_bad_steps evaluation.batch_size evaluation.last checkpoint.keep_last '
        'log_every_steps augment.crop_aspect schedule.plateau_patience data.synthetic.num_train',
        lambda value: value >= 1,
        'at least 1',
    ),
    (
        'seed data.size train.steps train.epochs train.steps_per_dispatch train.mixup train.cutmix '
        'train.early_stopping optimizer.learning_rate optimizer.weight_decay optimizer.clip_norm optimizer.clip_value '
        'schedule.warmup_epochs schedule.step_start_epochs evaluation.every_steps checkpoint.every_steps '
        'checkpoint.snapshot_steps augment.rotate augment.shift augment.shear augment.brightness augment.contrast',
        lambda value: value >= 0,
        'at least 0',
    ),
    (
        'train.label_smoothing train.ema augment.zoom optimizer.momentum optimizer.b1 optimizer.b2',
        lambda value: 0 <= value < 1,
        'a number from 0 to less than 1',
    ),
    ('schedule.plateau_factor', lambda value: 0 < value < 1, 'a number between 0 and 1'),
    ('seed data.synthetic.seed', lambda value: 0 <= value < 2**32, 'a whole number from 0 to 2**32 - 1'),
    ('augment.erase schedule.end_factor', lambda value: 0 <= value <= 1, 'a number from 0 to 1'),
    ('augment.crop_scale augment.erase_area', lambda value: 0 < value <= 1, 'a number above 0 and up to 1'),
    ('model.dropout', lambda value: value == -1 or 0 <= value < 1, '-1 or a number from 0 to less than 1'),
)


def main(argv: list[str] | None = None) -> int:
    """Parses the flags and trains; see the module."""
    argv = sys.argv[1:] if argv is None else argv
    parser = cli.ArgumentParser(prog='fer_jax.train', description=__doc__)
    parser.add_argument('--config', required=True, metavar='FILE[:ARG]', help='a file of configs/')
    parser.add_argument('--workdir', required=True, metavar='DIR', help='where the run lives; the same one goes on')
    parser.add_argument('--config.KEY', metavar='VALUE', dest='_', help='changes one field, as --config.seed=1')
    flags = parser.parse_args([word for word in argv if not word.startswith('--config.')])
    config = load_config(flags.config, [word for word in argv if word.startswith('--config.')])
    runtime.configure()
    try:
        train(config, flags.workdir)
    except Stopped as stopped:
        number, step = stopped.args
        print(f'stopped at step {step}; the checkpoint is written, the same command goes on from it', file=sys.stderr)
        return 128 + number
    return 0


def train(config: ConfigDict, workdir: str) -> None:
    """Trains a run to its end, from where it stands, and evaluates it into its workdir.

    Raises:
        UserError: for anything in the configuration, the data or the workdir that does not fit.
        Stopped: after SIGTERM or SIGINT, once a checkpoint is written.
    """
    _check(config)
    placement = make_placement(config.train.batch_size)
    _refuse_other_experiment(config, workdir)
    dataset = experiment.load_data(config)
    _refuse_other_data(dataset, workdir)
    with _locked(workdir):
        _train_and_evaluate(config, dataset, placement, workdir)


def _train_and_evaluate(config: ConfigDict, dataset: Dataset, placement: Placement, workdir: str) -> None:
    preprocessing = experiment.make_preprocessing(config, dataset)
    if preprocessing.input_side < 8:
        raise UserError(f'the network would see {preprocessing.input_side} pixels a side; at least 8 are wanted')
    options = _loop_options(config, len(dataset.splits['train']))
    schedule = make_schedule(
        ScheduleOptions(**config.schedule), config.optimizer.learning_rate, options.total_steps, options.steps_per_epoch
    )
    task = _make_task(config, dataset, preprocessing, schedule)
    summary = experiment.summarize_model(task.model, preprocessing)
    description = experiment.describe(
        config, dataset, preprocessing=dataclasses.asdict(preprocessing), model_summary=summary
    )
    experiment.write_json(os.path.join(workdir, 'config.json'), description)
    _announce(config, dataset, options, summary, workdir)

    state = jax.device_put(classify.init_state(task, jax.random.key(config.seed)), placement.replicated)
    hooks = Hooks(
        advance=make_advance(
            functools.partial(classify.train_step, task),
            put_resident(dataset.splits['train'], placement.replicated),
            placement,
            config.seed,
            config.train.batch_size,
            options.dispatch,
        ),
        evaluate=_make_evaluate(config, dataset, task),
        after_evaluation=_make_after_evaluation(task.plateau),
        learning_rate=_make_learning_rate(task, schedule),
    )
    checkpoints = Checkpoints(workdir, config.checkpoint.keep_last)
    run_loop(options, state, hooks, checkpoints, workdir)
    # A short run, or one stopped early, has fewer members than it may keep.
    steps = checkpoints.members(config.evaluation.last)
    if _is_scored(config, workdir, steps):
        print(f'{workdir} is trained and scored already; see {os.path.join(workdir, "report.md")}')
        return
    evaluate.evaluate_runs(
        [workdir], config.evaluation.splits, workdir, last=len(steps), tta=config.evaluation.tta, dataset=dataset
    )


def _check(config: ConfigDict) -> None:
    """What can be known to be wrong before any data is read."""
    if config.task != 'classify':
        raise UserError(f'config.task is {config.task!r}; it can be classify')
    if not config.evaluation.splits:
        raise UserError('config.evaluation.splits is empty; it can hold validation and test')
    for name in config.evaluation.splits:
        if name not in SPLITS[1:]:
            raise UserError(f'config.evaluation.splits names {name!r}; it can hold validation and test')
    if config.evaluation.tta not in VIEWS:
        raise UserError(f'config.evaluation.tta is {config.evaluation.tta!r}; it can be {", ".join(VIEWS)}')
    fields = flatten(config)
    for names, fits, words in _RANGES:
        for name in names.split():
            if not fits(fields[name]):
                raise UserError(f'config.{name} is {fields[name]}; {words} is wanted')
    if config.evaluation.last > config.checkpoint.keep_last:
        raise UserError(
            f'config.evaluation.last={config.evaluation.last} members are wanted, but '
            f'config.checkpoint.keep_last={config.checkpoint.keep_last} are kept; raise the latter'
        )


def _refuse_other_experiment(config: ConfigDict, workdir: str) -> None:
    if os.path.exists(workdir) and not os.path.isdir(workdir):
        raise UserError(f'--workdir={workdir} is a file; a directory is wanted')
    if not Checkpoints(workdir).steps():
        return
    if not os.path.exists(os.path.join(workdir, 'config.json')):
        raise UserError(f'{workdir} holds checkpoints of a run without its config.json; choose another --workdir')
    there, wanted = flatten(experiment.read_run(workdir).config), flatten(config)
    for name, value in wanted.items():
        # Evaluation at the end may be asked for anew; everything else makes another run.
        if there[name] != value and name not in ('evaluation.splits', 'evaluation.tta', 'evaluation.last'):
            raise UserError(
                f'{workdir} holds another experiment: config.{name} is {there[name]!r} there, {value!r} here; '
                'choose another --workdir, or give the same configuration to go on'
            )


def _refuse_other_data(dataset: Dataset, workdir: str) -> None:
    if not Checkpoints(workdir).steps():
        return
    there = experiment.read_run(workdir).manifest_hash
    if there != dataset.manifest_hash:
        raise UserError(
            f'{workdir} was trained on other data: manifest {there} there, {dataset.manifest_hash} of {dataset.name} '
            'now; choose another --workdir'
        )


def _loop_options(config: ConfigDict, num_train: int) -> LoopOptions:
    steps_per_epoch = num_train / config.train.batch_size
    total_steps = config.train.steps or round(config.train.epochs * steps_per_epoch)
    if total_steps < 1:
        raise UserError(f'config.train.epochs={config.train.epochs} makes no step; raise it, or set config.train.steps')
    return LoopOptions(
        total_steps=total_steps,
        examples_per_step=config.train.batch_size,
        steps_per_epoch=steps_per_epoch,
        log_every=config.log_every_steps,
        evaluate_every=config.evaluation.every_steps or max(1, round(steps_per_epoch)),
        checkpoint_every=config.checkpoint.every_steps,
        snapshot_every=config.checkpoint.snapshot_steps,
        dispatch=steps_per_dispatch(config.train.steps_per_dispatch, jax.default_backend()),
        max_bad_steps=config.train.max_bad_steps,
        early_stopping=config.train.early_stopping,
    )


def _is_scored(config: ConfigDict, workdir: str, steps: list[int]) -> bool:
    """Whether these members are scored on all splits asked for, so that repeating the command reads test no more."""
    path = os.path.join(workdir, 'scores.json')
    scores = read_scores(path) if os.path.exists(path) else {}
    return all(
        [member['step'] for member in scores.get(split, {}).get('members', [])] == steps
        and scores[split].get('tta') == config.evaluation.tta
        for split in config.evaluation.splits
    )


@contextlib.contextmanager
def _locked(workdir: str) -> Iterator[None]:
    """Holds the workdir for this process; the kernel lets it go with the process, however that ends."""
    os.makedirs(workdir, exist_ok=True)
    with open(os.path.join(workdir, '.lock'), 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f'another process is training in {workdir}; wait for it, or take another --workdir'
            ) from None
        yield


def _make_task(config: ConfigDict, dataset: Dataset, preprocessing: Preprocessing, schedule: Callable) -> classify.Task:
    plateau = make_plateau(ScheduleOptions(**config.schedule)) if config.schedule.name == 'plateau' else None
    return classify.Task(
        model=experiment.make_model(config, len(dataset.class_names)),
        optimizer=make_optimizer(OptimizerOptions(**config.optimizer), schedule),
        preprocessing=preprocessing,
        plateau=plateau,
        augmentation=experiment.make_augmentation(config),
        class_weights=experiment.class_weights(config, dataset),
        **{name: config.train[name] for name in ('label_smoothing', 'mixup', 'cutmix', 'ema')},
    )


def _make_evaluate(config: ConfigDict, dataset: Dataset, task: classify.Task):
    split = dataset.splits['validation']
    predict = inference.make_predict(task.model, task.preprocessing, map_members=True)

    def evaluate_state(state):
        members = jax.tree.map(lambda array: array[None], state.split()[0])
        logits = inference.predict_split(predict, members, split.images, config.evaluation.batch_size)[0]
        probabilities = softmax(logits)
        confusion = confusion_matrix(split.labels, logits.argmax(-1), len(dataset.class_names))
        scores = per_class_scores(confusion, dataset.class_names)
        return {
            'validation/accuracy': float((logits.argmax(-1) == split.labels).mean()),
            'validation/loss': negative_log_likelihood(probabilities, split.labels),
            'validation/macro_f1': float(np.mean([of_class['f1'] for of_class in scores.values()])),
        }

    return evaluate_state


def _make_learning_rate(task: classify.Task, schedule: Callable):
    if task.plateau is None:
        return lambda state, step: float(schedule(step))
    return lambda state, step: float(schedule(step) * state.plateau.scale)


def _make_after_evaluation(plateau: optax.GradientTransformationExtraArgs | None):
    if plateau is None:
        return lambda state, metrics: state

    def lower_rate(state, metrics):
        _, moved = plateau.update({}, state.plateau, value=metrics['validation/loss'])
        return state.replace(plateau=moved)

    return lower_rate


def _announce(config: ConfigDict, dataset: Dataset, options: LoopOptions, summary: dict, workdir: str) -> None:
    sizes = ', '.join(f'{name} {len(split):,}' for name, split in dataset.splits.items())
    device = jax.devices()[0]
    print(
        f'{config.model.name} ({summary["parameters"]:,} parameters) on {dataset.name} ({sizes}; '
        f'{len(dataset.class_names)} classes): {options.total_steps:,} steps of {options.examples_per_step} images '
        f'on {len(jax.devices())} {device.platform} device(s), into {workdir}'
    )


if __name__ == '__main__':
    cli.run(main)
