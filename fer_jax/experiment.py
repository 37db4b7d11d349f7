"""From a configuration to the parts of an experiment: data, network, task; and a run's own description on disk."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import os
import subprocess
import sys
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview
from ml_collections import ConfigDict

from fer_jax.config import default_config, flatten, set_field
from fer_jax.data.augment import Augmentation
from fer_jax.data.dataset import EMOTIONS, Dataset, class_counts, drop_classes, remove_training_twins
from fer_jax.data.prepared import load_prepared
from fer_jax.data.preprocess import Preprocessing, fit_images
from fer_jax.data.synthetic import load_synthetic
from fer_jax.errors import UserError
from fer_jax.models import create_model

_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


def load_data(config: ConfigDict) -> Dataset:
    """The data set that `config.data` names, with classes dropped, twins removed and images brought to size.

    Raises:
        UserError: if it is not there or does not have what the configuration asks for.
    """
    wanted = config.data
    if wanted.name == 'synthetic':
        dataset = load_synthetic(classes=EMOTIONS, **wanted.synthetic.to_dict())
    else:
        dataset = load_prepared(wanted.name)
    dataset = remove_training_twins(drop_classes(dataset, wanted.drop), wanted.remove_twins)
    for name, split in dataset.splits.items():
        if not len(split):
            raise UserError(f'{dataset.name}: the {name} split has no images')
    fit = lambda split: dataclasses.replace(split, images=fit_images(split.images, wanted.size, wanted.channels))
    return dataclasses.replace(dataset, splits={name: fit(split) for name, split in dataset.splits.items()})


def make_preprocessing(config: ConfigDict, dataset: Dataset) -> Preprocessing:
    """Window and normalisation; the figures are those of the training pixels."""
    images = dataset.splits['train'].images
    return Preprocessing(
        size=images.shape[1],
        channels=images.shape[-1],
        crop=config.data.crop,
        normalize=config.data.normalize,
        mean=round(float(images.mean(dtype=np.float64)), 4),
        deviation=round(float(images.std(dtype=np.float64)), 4),
    )


def make_model(config: ConfigDict, num_classes: int) -> nn.Module:
    """The network that `config.model` names."""
    return create_model(config.model.name, num_classes, config.model.dtype, config.model.dropout)


def make_augmentation(config: ConfigDict) -> Augmentation:
    """The ranges of `config.augment`."""
    return Augmentation(**config.augment.to_dict())


def class_weights(config: ConfigDict, dataset: Dataset) -> tuple[float, ...]:
    """Loss factors per class, N / (K n_k) when balanced (as scikit-learn), () for none."""
    kind = config.train.class_weights
    if kind == 'none':
        return ()
    if kind != 'balanced':
        raise UserError(f'config.train.class_weights is {kind!r}; it can be none or balanced')
    counts = class_counts(dataset.splits['train'].labels, dataset.class_names)
    empty = [name for name, count in counts.items() if not count]
    if empty:
        raise UserError(f'balanced class weights need training images of every class; {empty[0]} has none')
    total = sum(counts.values())
    return tuple(total / (len(counts) * count) for count in counts.values())


def summarize_model(model: nn.Module, preprocessing: Preprocessing) -> dict[str, float | int]:
    """Parameters, and floating-point operations per image as XLA counts them in the program it is given.

    Returns:
        `parameters`, `flops_per_image` (forward) and `train_flops_per_image` (forward and gradient).
    """
    if hasattr(model, 'blocked'):  # its blocks compute zeros that are no work of the network
        model = model.clone(blocked=False)
    side, batch = preprocessing.input_side, 8
    images = jax.ShapeDtypeStruct((batch, side, side, preprocessing.channels), jnp.float32)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), images)

    def loss(params, variables, images):
        logits, _ = model.apply(
            {**variables, 'params': params},
            images,
            train=True,
            mutable=['batch_stats'],
            rngs={'dropout': jax.random.key(0)},
        )[0]
        return logits.sum()

    forward = jax.jit(lambda variables, images: model.apply(variables, images)[0]).lower(variables, images)
    gradient = jax.jit(jax.grad(loss)).lower(variables['params'], variables, images)
    return {
        'parameters': int(parameter_overview.count_parameters(variables['params'])),
        'flops_per_image': forward.cost_analysis()['flops'] / batch,
        'train_flops_per_image': gradient.cost_analysis()['flops'] / batch,
    }


def describe(config: ConfigDict | None, dataset: Dataset, **more: Any) -> dict[str, Any]:
    """What config.json says besides: how it was called, on what, with which versions and data."""
    devices = jax.devices()
    counts = {name: class_counts(split.labels, dataset.class_names) for name, split in dataset.splits.items()}
    return {
        'config': config.to_dict() if config is not None else {},
        'command': ' '.join(['python -m', f'fer_jax.{_command_name()}', *sys.argv[1:]]),
        'seed': config.seed if config is not None else None,
        'versions': {'python': sys.version.split()[0]} | {name: importlib.metadata.version(name) for name in _PACKAGES},
        'devices': {'count': len(devices), 'platform': devices[0].platform, 'kind': devices[0].device_kind},
        'manifest': {**dataset.manifest, 'class_names': list(dataset.class_names), 'counts': counts},
        'manifest_hash': dataset.manifest_hash,
        'git_revision': _git_revision(),
        **more,
    }


@dataclasses.dataclass(frozen=True)
class RunDescription:
    """A run's config.json, read back.

    Attributes:
        workdir: where it lies.
        config: as it was trained.
        preprocessing: as it was trained.
        class_names: K names in the order of the logits.
        manifest_hash: of its data.
        summary: parameters and operations.
    """

    workdir: str
    config: ConfigDict
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    manifest_hash: str
    summary: dict[str, float | int]


def read_run(workdir: str) -> RunDescription:
    """Reads a run's config.json.

    Raises:
        UserError: if there is none, or it is not one.
    """
    path = os.path.join(workdir, 'config.json')
    try:
        with open(path) as file:
            described = json.load(file)
        config = default_config()
        for name, value in flatten(ConfigDict(described['config'])).items():
            set_field(config, name, value)
        return RunDescription(
            workdir=workdir,
            config=config.lock(),
            preprocessing=Preprocessing(**described['preprocessing']),
            class_names=tuple(described['manifest']['class_names']),
            manifest_hash=described['manifest_hash'],
            summary=described['model_summary'],
        )
    except FileNotFoundError:
        raise UserError(f'{workdir} is no run: it has no config.json') from None
    except (ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(f'{path} cannot be read ({error}); is it the config.json of a training run?') from None


def write_json(path: str, content: dict[str, Any]) -> None:
    """Writes a JSON file aside and renames it into place."""
    with open(path + '.partial', 'w') as file:
        json.dump(content, file, indent=2)
    os.replace(path + '.partial', path)


def _command_name() -> str:
    return os.path.splitext(os.path.basename(sys.argv[0]))[0]


def _git_revision() -> str | None:
    folder = os.path.dirname(os.path.abspath(__file__))
    git = ['git', '-C', folder, 'describe', '--always', '--dirty', '--abbrev=12']
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
