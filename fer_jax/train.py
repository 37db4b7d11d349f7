"""`python -m fer_jax.train`: trains what a configuration describes, then scores it and writes its report."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from fer_jax import checks, cli, distributed, ensembles, experiment, run_json, runtime
from fer_jax.clusters import find_membership
from fer_jax.config import load_config
from fer_jax.data.change_files import changes_in_words
from fer_jax.data.dataset import Dataset
from fer_jax.data.feed import Feed
from fer_jax.data.workers import usable_cores
from fer_jax.errors import UserError
from fer_jax.feeding import choose_feed_of_all, hold, make_feed
from fer_jax.members import member_directory, read_seeds
from fer_jax.several import pair_config, read_pairs, train_at_once, train_in_turn
from fer_jax.tasks import TASKS
from fer_jax.tasks.job import Job, Setting
from fer_jax.training.dispatch import make_advance, steps_per_dispatch
from fer_jax.training.hooks import Hooks, LoopOptions, Member
from fer_jax.training.loop import run_loop, run_members
from fer_jax.training.mesh import Placement, make_placement
from fer_jax.training.optimizer import OptimizerOptions, ScheduleOptions, make_schedule, peak_rate
from fer_jax.training.stopping import Stopped
from fer_jax.training.together import advancing, choose_way, steps_on_threads


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
            if config.ensemble.members > 1 and config.task == 'classify':
                train_members(config, flags.workdir)
            else:
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
    if read_seeds(workdir):
        raise UserError(f'{workdir} holds members that were trained together; choose another --workdir')
    dataset = _load([config], [workdir])
    with _locked(workdir):
        _train_and_finish([config], dataset, placement, [workdir])


def train_members(config: ConfigDict, workdir: str) -> None:
    """Trains the members of `config.ensemble` together, each into a run of its own, and scores them together.

    Raises:
        UserError: as `train`; and once the others are trained, if a member could not be trained to its end.
        Stopped: after SIGTERM or SIGINT, once all checkpoints are written.
    """
    seeds = ensembles.member_seeds(config)
    configs = [ensembles.member_config(config, seed) for seed in seeds]
    workdirs = [member_directory(workdir, seed) for seed in seeds]
    checks.check_config(configs[0])
    checks.refuse_other_configs(config, workdir)
    checks.refuse_idle_devices()
    way = choose_way(config.ensemble.how, jax.default_backend(), len(jax.devices()))
    placement = make_placement(config.train.batch_size, members=len(seeds) if way == 'vmap' else 1)
    ensembles.refuse_other_ensemble(config, workdir)
    dataset = _load(configs, workdirs)
    with contextlib.ExitStack() as stack:
        for place in (workdir, *workdirs):
            stack.enter_context(_locked(place))
        if distributed.is_main():
            ensembles.write_members(workdir, seeds)
        failed = _train_and_finish(configs, dataset, placement, workdirs, way)
        trained = [place for place, words in zip(workdirs, failed, strict=True) if not words]
        if trained:
            ensembles.evaluate_ensemble(config, workdir, trained, dataset)
    ensembles.report_failed(workdir, seeds, failed)


def _load(configs: Sequence[ConfigDict], workdirs: Sequence[str]) -> Dataset:
    """The data of runs, once it is known that these may go on in their workdirs."""
    for config, workdir in zip(configs, workdirs, strict=True):
        checks.refuse_other_experiment(config, workdir)
    dataset = TASKS[configs[0].task].narrow(configs[0], experiment.load_data(configs[0]))
    changes = dataset.manifest.get('changes', {})
    distributed.require_same('their data', f'manifest {dataset.manifest_hash} of {dataset.name}, changes {changes}')
    for workdir in workdirs:
        checks.refuse_other_data(dataset, workdir)
    return dataset


def _train_and_finish(
    configs: Sequence[ConfigDict], dataset: Dataset, placement: Placement, workdirs: Sequence[str], way: str = ''
) -> list[str]:
    """Trains a run, or several in the way given; of each the words on why it could not be trained to its end, or ''."""
    config, task = configs[0], TASKS[configs[0].task]
    feed_name, sizes = choose_feed_of_all(config, dataset, placement)
    dataset = hold(dataset, feed_name)
    images = dataset.splits['train'].images
    options = _loop_options(config, task.epoch_images(config, dataset), images.nbytes // len(images))
    if way == 'threads' and not config.train.steps_per_dispatch:
        options = dataclasses.replace(options, dispatch=steps_on_threads(len(configs), usable_cores()))
    peak = peak_rate(OptimizerOptions(**config.optimizer), config.train.batch_size)
    schedule = make_schedule(ScheduleOptions(**config.schedule), peak, options.total_steps, options.steps_per_epoch)
    settings = [
        Setting(
            of_run, dataset, placement, place, ensembles.checkpoints_of(of_run, place, len(configs)), schedule, index
        )
        for index, (of_run, place) in enumerate(zip(configs, workdirs, strict=True))
    ]
    job = task.make_job(settings[0])
    options = dataclasses.replace(options, chosen_by=job.chosen_by, pictures_every=job.pictures_every)
    seeds = [of_run.seed for of_run in configs]
    told = {'peak_learning_rate': peak, 'feed': feed_name, **job.description}
    told['batch_per_device'] = config.train.batch_size // placement.num_devices
    if way:
        told['ensemble'] = {'members': len(configs), 'seeds': seeds, 'how': way}
    runs = [_begin(setting, job, told) for setting in settings]
    if distributed.is_main():
        where = os.path.dirname(workdirs[0]) if way else workdirs[0]
        who = f'{len(seeds)} members (seeds {ensembles.in_words(seeds)}, by {way}) of {job.headline}'
        headline = who if way else job.headline
        _announce(config, dataset, options, headline, where, f'{feed_name} feed ({sizes})', placement)
    make = functools.partial(make_feed, feed_name, config, placement, options.dispatch)
    with contextlib.closing(task.make_feed(config, dataset, make)) as feed:
        failed = _loop(options, job, runs, feed, placement, seeds, way)
    for setting, words in zip(settings, failed, strict=True):
        if not words:
            job.finish(setting)
    return failed


def _begin(setting: Setting, job: Job, told: Mapping[str, Any]) -> Member:
    """A run's first state on the devices, and its config.json on disk."""
    state, source = job.start(setting)
    if distributed.is_main():
        description = run_json.describe(setting.config, setting.dataset, **told, **source)
        run_json.write_json(os.path.join(setting.workdir, 'config.json'), description)
    return Member(setting.placement.everywhere(state), setting.checkpoints, setting.workdir)


def _loop(
    options: LoopOptions, job: Job, runs: Sequence[Member], feed: Feed, placement: Placement, seeds: list[int], way: str
) -> list[str]:
    asked = {name: getattr(job, name) for name in ('after_evaluation', 'learning_rate', 'pictures')}
    asked['waited'] = lambda: feed.waited
    if not way:
        evaluate = job.evaluate and (lambda state: job.evaluate([state])[0])
        hooks = Hooks(make_advance(job.step, feed, placement, seeds[0], options.dispatch), evaluate, **asked)
        run_loop(options, runs[0].state, hooks, runs[0].checkpoints, runs[0].directory)
        return ['']
    with advancing(way, job.step, feed, placement, seeds, options.dispatch, usable_cores()) as (advance, spread):
        evaluate = job.evaluate and (lambda states: spread(job.evaluate, states))
        return run_members(options, runs, Hooks(advance, evaluate, **asked))[1]


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
