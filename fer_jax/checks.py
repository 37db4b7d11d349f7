"""What a run refuses, each in one line: values out of range, a workdir of another run, splits that are not there."""

from __future__ import annotations

import os

import jax
from ml_collections import ConfigDict

from fer_jax import clusters, distributed, run_json
from fer_jax.config import flatten
from fer_jax.data.change_files import changed_file
from fer_jax.data.dataset import Dataset
from fer_jax.errors import UserError
from fer_jax.tasks import TASKS
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.optimizer import OptimizerOptions, peak_rate

# Names, what fits, and what to say of what does not.
_RANGES = (
    (
        'train.batch_size train.max_bad_steps evaluation.batch_size checkpoint.keep_last '
        'model.norm_groups log_every_steps augment.crop_aspect schedule.plateau_patience data.synthetic.num_train '
        'cyclegan.width cyclegan.discriminator_width cyclegan.discriminator_layers cyclegan.samples '
        'cyclegan.score_images ensemble.members',
        lambda value: value >= 1,
        'at least 1',
    ),
    (
        'seed data.size train.steps train.epochs train.steps_per_dispatch train.mixup train.cutmix '
        'train.early_stopping optimizer.learning_rate optimizer.base_batch_size optimizer.weight_decay '
        'optimizer.clip_norm optimizer.clip_value schedule.warmup_epochs schedule.step_start_epochs '
        'schedule.restart_factor evaluation.every_steps evaluation.last checkpoint.every_steps '
        'checkpoint.snapshot_steps augment.rotate augment.shift augment.shear augment.brightness augment.contrast '
        'cyclegan.blocks cyclegan.cycle cyclegan.identity cyclegan.pool cyclegan.samples_every',
        lambda value: value >= 0,
        'at least 0',
    ),
    (
        'train.label_smoothing train.ema augment.zoom optimizer.momentum optimizer.b1 optimizer.b2',
        lambda value: 0 <= value < 1,
        'a number from 0 to less than 1',
    ),
    ('data.order_seed', lambda value: -1 <= value < 2**32, 'a whole number from 0 to 2**32 - 1, or -1'),
    ('schedule.plateau_factor', lambda value: 0 < value < 1, 'a number between 0 and 1'),
    ('seed data.synthetic.seed', lambda value: 0 <= value < 2**32, 'a whole number from 0 to 2**32 - 1'),
    (
        'augment.erase schedule.end_factor schedule.constant_share train.teacher_share',
        lambda value: 0 <= value <= 1,
        'a number from 0 to 1',
    ),
    ('augment.crop_scale augment.erase_area', lambda value: 0 < value <= 1, 'a number above 0 and up to 1'),
    ('model.dropout', lambda value: value == -1 or 0 <= value < 1, '-1 or a number from 0 to less than 1'),
)

# Evaluation at the end may be asked for anew, and every feed gives the same batches; all else makes another run.
_FREE = ('evaluation.splits', 'evaluation.tta', 'evaluation.last', 'data.feed')


def check_config(config: ConfigDict) -> None:
    """Refuses what can be known to be wrong of any task before any data is read."""
    if config.task not in TASKS:
        raise UserError(f'config.task is {config.task!r}; it can be {", ".join(TASKS)}')
    fields = flatten(config)
    for names, fits, words in _RANGES:
        for name in names.split():
            if not fits(fields[name]):
                raise UserError(f'config.{name} is {fields[name]}; {words} is wanted')
    peak_rate(OptimizerOptions(**config.optimizer), config.train.batch_size)
    TASKS[config.task].check_config(config)


def refuse_other_configs(config: ConfigDict, workdir: str) -> None:
    """Refuses processes of one run that were given different configurations or workdirs."""
    fields = [f'config.{name}={value!r}' for name, value in flatten(config).items()]
    distributed.require_same('what they were given', '\n'.join([*fields, f'--workdir={workdir}']))


def refuse_idle_devices() -> None:
    """Refuses a run that would leave some of the GPUs that the job has on this host unused."""
    used = distributed.sum_on_host(jax.local_device_count() if jax.default_backend() == 'gpu' else 0)
    there = clusters.allocated_gpus(os.environ)
    if os.environ.get('JAX_PLATFORMS') == 'cpu' and 'SLURM_GPUS_ON_NODE' not in os.environ:
        return  # somebody's will; but what Slurm has given to the job nobody else can use
    if used < there and os.environ.get('FER_JAX_ALLOW_IDLE') != '1':
        raise UserError(
            f'{there} GPUs of this host are allocated, and {used} would be used; start one process with all of them '
            'or as many as they divide into'
            + ('' if used else ' (jax finds none: is the gpu extra installed, is JAX_PLATFORMS set?)')
            + '; FER_JAX_ALLOW_IDLE=1 leaves them idle'
        )


def refuse_other_experiment(config: ConfigDict, workdir: str) -> None:
    """Refuses a workdir that holds checkpoints of another configuration."""
    if os.path.exists(workdir) and not os.path.isdir(workdir):
        raise UserError(f'--workdir={workdir} is a file; a directory is wanted')
    if not Checkpoints(workdir).steps():
        return
    if not os.path.exists(os.path.join(workdir, 'config.json')):
        raise UserError(f'{workdir} holds checkpoints of a run without its config.json; choose another --workdir')
    there, wanted = flatten(run_json.read_run(workdir).config), flatten(config)
    for name, value in wanted.items():
        if there[name] != value and name not in _FREE:
            raise UserError(
                f'{workdir} holds another experiment: config.{name} is {there[name]!r} there, {value!r} here; '
                'choose another --workdir, or give the same configuration to go on'
            )


def refuse_other_data(dataset: Dataset, workdir: str) -> None:
    """Refuses a workdir that holds checkpoints trained on other data."""
    if not Checkpoints(workdir).steps():
        return
    run = run_json.read_run(workdir)
    if run.manifest_hash != dataset.manifest_hash:
        raise UserError(
            f'{workdir} was trained on other data: manifest {run.manifest_hash} there, {dataset.manifest_hash} of '
            f'{dataset.name} now; choose another --workdir'
        )
    changed = changed_file(run.changes, dataset.manifest.get('changes', {}))
    if changed:
        raise UserError(
            f'{workdir} was trained on other training images: {changed} has changed since; choose another --workdir'
        )
