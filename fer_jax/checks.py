"""What a run refuses, each in one line: values out of range, a workdir of another run, splits that are not there."""

from __future__ import annotations

import os

import jax
from ml_collections import ConfigDict

from fer_jax import clusters, distributed, experiment
from fer_jax.config import flatten
from fer_jax.data.change_files import changed_file
from fer_jax.data.dataset import SPLITS, Dataset
from fer_jax.data.preprocess import VIEWS
from fer_jax.errors import UserError
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.optimizer import OptimizerOptions, peak_rate

# Names, what fits, and what to say of what does not.
_RANGES = (
    (
        'train.batch_size train.max_bad_steps evaluation.batch_size evaluation.last checkpoint.keep_last '
        'model.norm_groups log_every_steps augment.crop_aspect schedule.plateau_patience data.synthetic.num_train',
        lambda value: value >= 1,
        'at least 1',
    ),
    (
        'seed data.size train.steps train.epochs train.steps_per_dispatch train.mixup train.cutmix '
        'train.early_stopping optimizer.learning_rate optimizer.base_batch_size optimizer.weight_decay '
        'optimizer.clip_norm optimizer.clip_value schedule.warmup_epochs schedule.step_start_epochs '
        'schedule.restart_factor evaluation.every_steps checkpoint.every_steps checkpoint.snapshot_steps '
        'augment.rotate augment.shift augment.shear augment.brightness augment.contrast',
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

# Evaluation at the end may be asked for anew, and every feed gives the same batches; all else makes another run.
_FREE = ('evaluation.splits', 'evaluation.tta', 'evaluation.last', 'data.feed')


def check_config(config: ConfigDict) -> None:
    """Refuses what can be known to be wrong before any data is read."""
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
    batch, groups = config.train.batch_size, config.model.norm_groups
    if batch % groups or batch == groups > 1:
        raise UserError(
            f'config.model.norm_groups={groups} does not cut config.train.batch_size={batch} into equal parts of two '
            'images or more'
        )
    peak_rate(OptimizerOptions(**config.optimizer), batch)
    if config.evaluation.last > config.checkpoint.keep_last:
        raise UserError(
            f'config.evaluation.last={config.evaluation.last} members are wanted, but '
            f'config.checkpoint.keep_last={config.checkpoint.keep_last} are kept; raise the latter'
        )


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
    there, wanted = flatten(experiment.read_run(workdir).config), flatten(config)
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
    run = experiment.read_run(workdir)
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


def check_splits(config: ConfigDict, dataset: Dataset) -> None:
    """Refuses a configuration that reads a split which the data does not have."""
    there = ', '.join(dataset.splits)
    for name in config.evaluation.splits:
        if name not in dataset.splits:
            raise UserError(
                f'config.evaluation.splits names {name}, and {dataset.name} has {there}; set it to one of these, '
                'or make the split with config.data.folds'
            )
    if 'validation' in dataset.splits:
        return
    for field, chosen in (
        ('train.early_stopping', config.train.early_stopping > 0),
        ('schedule.name=plateau', config.schedule.name == 'plateau'),
    ):
        if chosen:
            raise UserError(f'config.{field} goes by the validation loss, and {dataset.name} has no validation split')
