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

from fer_jax import checks, cli, distributed, evaluate, experiment, pretrained, runtime
from fer_jax.clusters import find_membership
from fer_jax.config import load_config
from fer_jax.data.change_files import changes_in_words
from fer_jax.data.dataset import Dataset, Split
from fer_jax.data.feed import FEEDS, Feed, ResidentFeed, choose_feed, free_memory
from fer_jax.data.preprocess import Preprocessing
from fer_jax.data.sharded import ShardedFeed
from fer_jax.data.streaming import StreamingFeed
from fer_jax.data.workers import usable_cores
from fer_jax.errors import UserError
from fer_jax.evaluation import inference
from fer_jax.evaluation.scores import confusion_matrix, negative_log_likelihood, per_class_scores, read_scores, softmax
from fer_jax.training import classify
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.dispatch import make_advance, steps_per_dispatch
from fer_jax.training.loop import Hooks, LoopOptions, run_loop
from fer_jax.training.mesh import Placement, make_placement
from fer_jax.training.optimizer import (
    OptimizerOptions,
    ScheduleOptions,
    make_optimizer,
    make_plateau,
    make_schedule,
    peak_rate,
)
from fer_jax.training.stopping import Stopped

_HELD_SHARE = 8  # validation is kept in memory if it takes at most one part in so many of what is free


def main(argv: list[str] | None = None) -> int:
    """Parses the flags and trains; see the module."""
    argv = sys.argv[1:] if argv is None else argv
    parser = cli.ArgumentParser(prog='fer_jax.train', description=__doc__)
    parser.add_argument('--config', required=True, metavar='FILE[:ARG]', help='a file of configs/')
    parser.add_argument('--workdir', required=True, metavar='DIR', help='where the run lives; the same one goes on')
    parser.add_argument('--config.KEY', metavar='VALUE', dest='_', help='changes one field, as --config.seed=1')
    parser.add_argument('--coordinator', metavar='HOST:PORT', help='of several processes: where the first one is')
    parser.add_argument('--num', type=int, metavar='N', help='of several processes: how many')
    parser.add_argument('--id', type=int, metavar='I', help='of several processes: which one this is, from 0')
    flags = parser.parse_args([word for word in argv if not word.startswith('--config.')])
    member = find_membership(os.environ, flags.coordinator, flags.num, flags.id)
    runtime.configure(several=member is not None)
    distributed.initialise(flags.coordinator, flags.num, flags.id)
    with distributed.together(cli.explain):
        config = load_config(flags.config, [word for word in argv if word.startswith('--config.')])
        try:
            train(config, flags.workdir)
        except Stopped as stopped:
            number, step = stopped.args
            if distributed.is_main():
                words = 'the checkpoint is written, the same command goes on from it'
                print(f'stopped at step {step}; {words}', file=sys.stderr)
            return 128 + number
    return 0


def train(config: ConfigDict, workdir: str) -> None:
    """Trains a run to its end, from where it stands, and evaluates it into its workdir.

    Raises:
        UserError: for anything in the configuration, the data or the workdir that does not fit.
        Stopped: after SIGTERM or SIGINT, once a checkpoint is written.
    """
    checks.check_config(config)
    checks.refuse_other_configs(config, workdir)
    checks.refuse_idle_devices()
    placement = make_placement(config.train.batch_size)
    checks.refuse_other_experiment(config, workdir)
    dataset = experiment.load_data(config)
    checks.check_splits(config, dataset)
    changes = dataset.manifest.get('changes', {})
    distributed.require_same('their data', f'manifest {dataset.manifest_hash} of {dataset.name}, changes {changes}')
    checks.refuse_other_data(dataset, workdir)
    with _locked(workdir):
        _train_and_evaluate(config, dataset, placement, workdir)


def _train_and_evaluate(config: ConfigDict, dataset: Dataset, placement: Placement, workdir: str) -> None:
    feed_name, sizes = _choose_feed(config, dataset, placement)
    dataset = _hold(dataset, feed_name)
    preprocessing = experiment.make_preprocessing(config, dataset)
    if preprocessing.input_side < 8:
        raise UserError(f'the network would see {preprocessing.input_side} pixels a side; at least 8 are wanted')
    train = dataset.splits['train']
    options = _loop_options(config, len(train), train.images.nbytes // len(train))
    peak = peak_rate(OptimizerOptions(**config.optimizer), config.train.batch_size)
    schedule = make_schedule(ScheduleOptions(**config.schedule), peak, options.total_steps, options.steps_per_epoch)
    task = _make_task(config, dataset, preprocessing, schedule)
    summary = experiment.summarize_model(task.model, preprocessing)
    checkpoints = Checkpoints(workdir, config.checkpoint.keep_last)
    state, source = _initialise(config, dataset, task, workdir, checkpoints)
    state = placement.everywhere(state)
    if distributed.is_main():
        description = experiment.describe(
            config,
            dataset,
            preprocessing=dataclasses.asdict(preprocessing),
            model_summary=summary,
            batch_per_device=config.train.batch_size // placement.num_devices,
            peak_learning_rate=peak,
            feed=feed_name,
            **source,
        )
        experiment.write_json(os.path.join(workdir, 'config.json'), description)
        _announce(config, dataset, options, summary, workdir, f'{feed_name} feed ({sizes})', placement)

    with contextlib.closing(_make_feed(feed_name, config, train, placement, options.dispatch)) as feed:
        step = functools.partial(classify.train_step, task)
        hooks = Hooks(
            advance=make_advance(step, feed, placement, config.seed, options.dispatch),
            evaluate=_make_evaluate(config, dataset, task, placement) if 'validation' in dataset.splits else None,
            after_evaluation=_make_after_evaluation(task.plateau),
            learning_rate=_make_learning_rate(task, schedule),
            waited=lambda: feed.waited,
        )
        run_loop(options, state, hooks, checkpoints, workdir)
    _evaluate_run(config, dataset, checkpoints, workdir)


def _evaluate_run(config: ConfigDict, dataset: Dataset, checkpoints: Checkpoints, workdir: str) -> None:
    # A short run, or one stopped early, has fewer members than it may keep.
    steps = checkpoints.members(config.evaluation.last)
    if distributed.agree_max(_is_scored(config, workdir, steps)):
        if distributed.is_main():
            print(f'{workdir} is trained and scored already; see {os.path.join(workdir, "report.md")}')
        return
    evaluate.evaluate_runs(
        [workdir], config.evaluation.splits, workdir, last=len(steps), tta=config.evaluation.tta, dataset=dataset
    )


def _initialise(
    config: ConfigDict, dataset: Dataset, task: classify.Task, workdir: str, checkpoints: Checkpoints
) -> tuple[classify.State, dict]:
    """The first state and, with `init_from`, what config.json says of it; a run that goes on needs no source."""
    state = classify.init_state(task, jax.random.key(config.seed))
    if not config.init_from:
        return state, {}
    if checkpoints.newest() is not None:
        return state, {'initialised_from': pretrained.recorded(workdir)}
    names = dataset.class_names
    variables, report = pretrained.load_pretrained(
        config.init_from, state.variables, model=config.model.name, class_names=names
    )
    if distributed.is_main():
        print('\n'.join(report.lines()))
    average = None if state.average is None else jax.tree.map(jax.numpy.copy, variables)
    return state.replace(variables=variables, average=average), {'initialised_from': report.to_dict()}


def _choose_feed(config: ConfigDict, dataset: Dataset, placement: Placement) -> tuple[str, str]:
    """The feed that every process has room for, and the sizes in this one."""
    local = jax.local_devices()
    num_bytes = dataset.splits['train'].images.nbytes
    hosts = {
        'on_host': distributed.sum_on_host(len(local)),
        'processes': distributed.sum_on_host(1),
        'hosts': distributed.count_hosts(),
        'cores': min(os.cpu_count() or 1, distributed.sum_on_host(usable_cores())),
    }
    name, sizes = choose_feed(config.data.feed, num_bytes, local[0], placement.num_devices, **hosts)
    return FEEDS[distributed.agree_max(FEEDS.index(name))], sizes


def _hold(dataset: Dataset, feed_name: str) -> Dataset:
    """The data set with what is read again and again in memory: training images for the device, small validation."""
    validation = dataset.splits.get('validation')
    held = ['train'] if feed_name == 'resident' else []
    if validation is not None and validation.images.nbytes * _HELD_SHARE <= free_memory():
        held.append('validation')
    return experiment.hold_images(dataset, *held)


def _make_feed(name: str, config: ConfigDict, split: Split, placement: Placement, dispatch: int) -> Feed:
    order = (split, config.seed, config.train.batch_size, dispatch)
    if name == 'resident':
        return ResidentFeed(*order, everywhere=placement.replicated, cut=placement.split(1))
    if name == 'sharded':
        return ShardedFeed(*order, cut=placement.split(1))
    part = {'process_index': jax.process_index(), 'process_count': jax.process_count()}
    return StreamingFeed(*order, cut=placement.split(1), **part)


def _loop_options(config: ConfigDict, num_train: int, image_bytes: int = 0) -> LoopOptions:
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
        dispatch=steps_per_dispatch(
            config.train.steps_per_dispatch, jax.default_backend(), image_bytes * config.train.batch_size
        ),
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
    """Holds the workdir for this run; the kernel lets it go with process 0, however that ends."""
    if not distributed.is_main():
        distributed.barrier('the workdir is held')
        yield
        return
    os.makedirs(workdir, exist_ok=True)
    with open(os.path.join(workdir, '.lock'), 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f'another process is training in {workdir}; wait for it, or take another --workdir'
            ) from None
        distributed.barrier('the workdir is held')
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


def _make_evaluate(config: ConfigDict, dataset: Dataset, task: classify.Task, placement: Placement):
    split = dataset.splits['validation']
    predict = inference.make_predict(task.model, task.preprocessing, map_members=True, placement=placement)

    def evaluate_state(state):
        members = inference.stack_members([state.split()[0]])
        logits = inference.predict_split(
            predict, members, split.images, config.evaluation.batch_size, placement=placement
        )[0]
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


def _announce(
    config: ConfigDict,
    dataset: Dataset,
    options: LoopOptions,
    summary: dict,
    workdir: str,
    feed: str,
    placement: Placement,
) -> None:
    sizes = ', '.join(f'{name} {len(split):,}' for name, split in dataset.splits.items())
    number, platform = placement.num_devices, jax.devices()[0].platform
    devices = f'{number} {platform} device(s)'
    for line in changes_in_words(dataset.manifest.get('changes', {})):
        print(line)
    if number > 1:
        devices += f', {options.examples_per_step // number} images on each'
    if config.model.norm_groups > 1:
        devices += f', BatchNorm in groups of {options.examples_per_step // config.model.norm_groups}'
    print(
        f'{config.model.name} ({summary["parameters"]:,} parameters) on {dataset.name} ({sizes}; '
        f'{len(dataset.class_names)} classes): {options.total_steps:,} steps of {options.examples_per_step} images '
        f'on {devices}, {feed}, into {workdir}'
    )
    if config.optimizer.scale_rate != 'none':
        wanted = OptimizerOptions(**config.optimizer)
        peak = peak_rate(wanted, options.examples_per_step)
        print(
            f'peak learning rate {peak:.4g}: {wanted.learning_rate:.4g} for batches of {wanted.base_batch_size}, '
            f'scaled ({wanted.scale_rate}) to {options.examples_per_step}'
        )


if __name__ == '__main__':
    cli.run(main)
