"""`python -m fer_jax.train`: trains what a configuration describes, then scores it and writes its report."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import os
import sys
from collections.abc import Iterator

import jax
from ml_collections import ConfigDict

from fer_jax import checks, cli, distributed, experiment, runtime
from fer_jax.clusters import find_membership
from fer_jax.config import load_config
from fer_jax.data.change_files import changes_in_words
from fer_jax.data.dataset import Dataset, Split
from fer_jax.data.feed import FEEDS, Feed, ResidentFeed, choose_feed, free_memory
from fer_jax.data.sharded import ShardedFeed
from fer_jax.data.streaming import StreamingFeed
from fer_jax.data.workers import usable_cores
from fer_jax.errors import UserError
from fer_jax.several import pair_config, read_pairs, train_at_once, train_in_turn
from fer_jax.tasks import TASKS
from fer_jax.tasks.job import Setting
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.dispatch import make_advance, steps_per_dispatch
from fer_jax.training.loop import Hooks, LoopOptions, run_loop
from fer_jax.training.mesh import Placement, make_placement
from fer_jax.training.optimizer import OptimizerOptions, ScheduleOptions, make_schedule, peak_rate
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
        changes = [word for word in argv if word.startswith('--config.')]
        config = load_config(flags.config, changes)
        try:
            if config.pairs:
                return _train_pairs(config, flags.workdir, [f'--config={flags.config}', *changes], member is not None)
            train(config, flags.workdir)
        except Stopped as stopped:
            number, step = stopped.args
            if distributed.is_main():
                words = 'the checkpoint is written, the same command goes on from it'
                print(f'stopped at step {step}; {words}', file=sys.stderr)
            return 128 + number
    return 0


def _train_pairs(config: ConfigDict, workdir: str, words: list[str], several: bool) -> int:
    for pair in read_pairs(config):
        checks.check_config(pair_config(config, pair))
    if config.cyclegan.devices == 'one':
        if several:
            raise UserError('config.cyclegan.devices=one starts its own processes; start it as one, or set it to all')
        return train_at_once(config, workdir, words)
    train_in_turn(config, workdir, train)
    return 0


def train(config: ConfigDict, workdir: str) -> None:
    """Trains a run to its end, from where it stands, and finishes it as its task does.

    Raises:
        UserError: for anything in the configuration, the data or the workdir that does not fit.
        Stopped: after SIGTERM or SIGINT, once a checkpoint is written.
    """
    checks.check_config(config)
    checks.refuse_other_configs(config, workdir)
    checks.refuse_idle_devices()
    placement = make_placement(config.train.batch_size)
    checks.refuse_other_experiment(config, workdir)
    dataset = TASKS[config.task].narrow(config, experiment.load_data(config))
    changes = dataset.manifest.get('changes', {})
    distributed.require_same('their data', f'manifest {dataset.manifest_hash} of {dataset.name}, changes {changes}')
    checks.refuse_other_data(dataset, workdir)
    with _locked(workdir):
        _train_and_finish(config, dataset, placement, workdir)


def _train_and_finish(config: ConfigDict, dataset: Dataset, placement: Placement, workdir: str) -> None:
    task = TASKS[config.task]
    feed_name, sizes = _choose_feed(config, dataset, placement)
    dataset = _hold(dataset, feed_name)
    images = dataset.splits['train'].images
    options = _loop_options(config, task.epoch_images(config, dataset), images.nbytes // len(images))
    peak = peak_rate(OptimizerOptions(**config.optimizer), config.train.batch_size)
    schedule = make_schedule(ScheduleOptions(**config.schedule), peak, options.total_steps, options.steps_per_epoch)
    checkpoints = Checkpoints(workdir, config.checkpoint.keep_last)
    job = task.make_job(Setting(config, dataset, placement, workdir, checkpoints, schedule))
    state = placement.everywhere(job.state)
    if distributed.is_main():
        description = experiment.describe(
            config,
            dataset,
            batch_per_device=config.train.batch_size // placement.num_devices,
            peak_learning_rate=peak,
            feed=feed_name,
            **job.description,
        )
        experiment.write_json(os.path.join(workdir, 'config.json'), description)
        _announce(config, dataset, options, job.headline, workdir, f'{feed_name} feed ({sizes})', placement)

    make_feed = functools.partial(_make_feed, feed_name, config, placement, options.dispatch)
    with contextlib.closing(task.make_feed(config, dataset, make_feed)) as feed:
        hooks = Hooks(
            advance=make_advance(job.step, feed, placement, config.seed, options.dispatch),
            evaluate=job.evaluate,
            after_evaluation=job.after_evaluation,
            learning_rate=job.learning_rate,
            pictures=job.pictures,
            waited=lambda: feed.waited,
        )
        options = dataclasses.replace(options, chosen_by=job.chosen_by, pictures_every=job.pictures_every)
        run_loop(options, state, hooks, checkpoints, workdir)
    job.finish()


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


def _make_feed(name: str, config: ConfigDict, placement: Placement, dispatch: int, split: Split, seed: int) -> Feed:
    order = (split, seed, config.train.batch_size, dispatch)
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


def _announce(
    config: ConfigDict,
    dataset: Dataset,
    options: LoopOptions,
    headline: str,
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
        f'{headline} on {dataset.name} ({sizes}; '
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
