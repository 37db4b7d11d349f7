"""From a configuration to the parts of an experiment: data, network, augmentation."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
from clu import parameter_overview
from ml_collections import ConfigDict

from fer_jax import run_json
from fer_jax.data import stored
from fer_jax.data.additions import add_pictures
from fer_jax.data.augment import Augmentation
from fer_jax.data.chained import ChainedImages
from fer_jax.data.corrections import exclude_suspects
from fer_jax.data.dataset import (
    EMOTIONS,
    Dataset,
    add_soft_targets,
    class_counts,
    drop_classes,
    limit_classes,
    remove_training_twins,
    rename_classes,
)
from fer_jax.data.folds import apply_folds, resplit_training
from fer_jax.data.noise import add_label_noise
from fer_jax.data.preprocess import Preprocessing, pixel_figures
from fer_jax.data.stored import StoredImages, fit_images
from fer_jax.data.synthetic import load_synthetic
from fer_jax.errors import UserError
from fer_jax.models import create_model
from fer_jax.models.initial import variable_shapes
from fer_jax.models.operations import count_operations

load_prepared = functools.partial(stored.load_prepared, lazy=True)

_LAZY = (StoredImages, ChainedImages)
_OF_MODEL = ('dtype', 'dropout', 'norm_groups')


def load_data(config: ConfigDict) -> Dataset:
    """The data set that `config.data` names, with classes, folds and limits as it says, and images brought to size.

    In this order: classes are dropped, renamed and merged; training is cut anew or folds are drawn of everything. Of
    the training split alone, labels are then made wrong (`noise`), images left out and relabelled by audits
    (`exclude`), twins of others removed, classes limited; folds of that split alone are drawn. Last, pictures are
    added (`extra`). Ids stay what they are throughout. Of prepared data only the index is read: its images are read
    when they are indexed, or by `hold_images`.

    Raises:
        UserError: if it is not there or does not have what the configuration asks for.
    """
    wanted = config.data
    dataset = load_foldable(config)
    of_training = wanted.folds and wanted.fold_of == 'train'
    if wanted.folds:
        dataset = apply_folds(
            dataset, wanted.folds, wanted.fold, wanted.fold_by, wanted.fold_validation, wanted.split_seed
        )
    if not of_training:
        dataset = _change_training(dataset, wanted)
    elif wanted.remove_twins != 'none':
        dataset = remove_training_twins(dataset, 'evaluation')  # of the fold that is tested now
    if wanted.soft_labels:
        dataset = add_soft_targets(dataset, wanted.drop, wanted.rename)
    for name in dict.fromkeys(['train', *dataset.splits]):
        if not len(dataset.splits.get(name, ())):
            raise UserError(f'{dataset.name}: the {name} split has no images')

    def fit(split):
        lazy = isinstance(split.images, StoredImages)
        how = (wanted.size, wanted.channels)
        return dataclasses.replace(split, images=split.images.fit(*how) if lazy else fit_images(split.images, *how))

    dataset = dataclasses.replace(dataset, splits={name: fit(split) for name, split in dataset.splits.items()})
    return add_pictures(dataset, wanted.extra)


def load_foldable(config: ConfigDict) -> Dataset:
    """What `config.data.folds` are drawn of: the whole data set or, with `fold_of`, its training split alone.

    That is the one that is trained on without folds: changed labels, audits, twins and limits come before them.

    Raises:
        UserError: as `load_data`.
    """
    wanted = config.data
    if wanted.fold_of not in ('all', 'train'):
        raise UserError(f'config.data.fold_of is {wanted.fold_of!r}; it can be all or train')
    of_training = wanted.fold_of == 'train'
    if wanted.folds and wanted.resplit and not of_training:
        raise UserError('config.data.folds and config.data.resplit both make splits; set one of them')
    dataset = load_whole(config)
    if wanted.resplit:
        dataset = resplit_training(dataset, wanted.resplit, wanted.fold_by, wanted.split_seed)
    if not (wanted.folds and of_training):
        return dataset
    dataset = _change_training(dataset, wanted)
    return dataclasses.replace(dataset, splits={'train': dataset.splits['train']})


def _change_training(dataset: Dataset, wanted: ConfigDict) -> Dataset:
    dataset = add_label_noise(dataset, **wanted.noise.to_dict())
    dataset = exclude_suspects(dataset, wanted.exclude, wanted.drop, wanted.rename)
    changes = dataset.manifest.get('changes', {})
    if wanted.soft_labels and ('noise' in changes or changes.get('exclude', {}).get('relabelled')):
        raise UserError('config.data.soft_labels trains on votes, which changed labels do not reach; set one of them')
    return limit_classes(remove_training_twins(dataset, wanted.remove_twins), wanted.limit, wanted.split_seed)


def load_whole(config: ConfigDict) -> Dataset:
    """The data set that `config.data` names with the classes in use, in the splits that it came with.

    Raises:
        UserError: if it is not there, or has not the classes.
    """
    wanted = config.data
    if wanted.name == 'synthetic':
        dataset = load_synthetic(classes=EMOTIONS, **wanted.synthetic.to_dict())
    else:
        dataset = load_prepared(wanted.name)
    dataset = rename_classes(drop_classes(dataset, wanted.drop), wanted.rename)
    if len(dataset.class_names) < 2:
        raise UserError(f'{dataset.name} has one class, {dataset.class_names[0]}; at least two are wanted')
    return dataset


def hold_images(dataset: Dataset, *names: str) -> Dataset:
    """The data set with the images of these splits in the host's memory, every one checked against its hash."""
    splits = dict(dataset.splits)
    for name in names:
        if isinstance(splits[name].images, _LAZY):
            splits[name] = dataclasses.replace(splits[name], images=splits[name].images.load(f'reading {name}'))
    return dataclasses.replace(dataset, splits=splits)


def make_preprocessing(config: ConfigDict, dataset: Dataset) -> Preprocessing:
    """Window and normalisation; the figures are those of the training pixels."""
    images = dataset.splits['train'].images
    mean, deviation = _stored_figures(images) if isinstance(images, _LAZY) else pixel_figures(images)
    return Preprocessing(
        size=images.shape[1],
        channels=images.shape[-1],
        crop=config.data.crop,
        normalize=config.data.normalize,
        mean=mean,
        deviation=deviation,
    )


def _stored_figures(images: StoredImages | ChainedImages) -> tuple[float, float]:
    """`pixel_figures`, kept beside the prepared data: reading every picture of a large set takes minutes."""
    path = os.path.join(images.directory, 'figures.json')
    key = f'{images.content_hash()} {images.shape[1]} {images.shape[3]}'
    try:
        with open(path) as file:
            kept = dict(json.load(file))
    except (OSError, ValueError, TypeError):  # none yet, or one cut short
        kept = {}
    if key not in kept:
        kept[key] = pixel_figures(images, 'mean and deviation of the training pixels')
        with contextlib.suppress(OSError):  # the data may be read-only
            run_json.write_json(path, kept)
    mean, deviation = kept[key]
    return mean, deviation


def order_seed(config: ConfigDict) -> int:
    """The seed of the order of the training images."""
    return config.seed if config.data.order_seed < 0 else config.data.order_seed


def make_model(config: ConfigDict, num_classes: int) -> nn.Module:
    """The network that `config.model` names."""
    return create_model(config.model.name, num_classes, **{name: config.model[name] for name in _OF_MODEL})


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
    return dict(_summarize(model, preprocessing.input_side, preprocessing.channels))


@functools.cache  # once for the folds and members of a command
def _summarize(model: nn.Module, side: int, channels: int) -> dict[str, float | int]:
    batch = 8
    images = jax.ShapeDtypeStruct((batch, side, side, channels), jnp.float32)
    variables = variable_shapes(model, (side, side, channels))
    if hasattr(model, 'norm_groups'):  # which need not divide this batch
        model = model.clone(norm_groups=1)

    def loss(params, variables, images):
        logits, _ = model.apply(
            {**variables, 'params': params},
            images,
            train=True,
            mutable=['batch_stats'],
            rngs={'dropout': jax.random.key(0)},
        )[0]
        return logits.sum()

    forward = lambda variables, images: model.apply(variables, images)[0]
    return {
        'parameters': int(parameter_overview.count_parameters(variables['params'])),
        'flops_per_image': count_operations(forward, variables, images) / batch,
        'train_flops_per_image': count_operations(jax.grad(loss), variables['params'], variables, images) / batch,
    }
