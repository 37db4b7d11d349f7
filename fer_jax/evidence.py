"""What methods of an audit judge by, found or made: out-of-fold predictions, margins in training, translations.

All of it lies under one directory, so that several methods and later audits share it, and what was interrupted goes on.

Shapes: N training images, K classes, E epochs.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from ml_collections import ConfigDict
from tqdm import tqdm

from fer_jax import crossvalidate, experiment, run_json, train, translators
from fer_jax.data.dataset import Dataset, Split
from fer_jax.data.stored import StoredImages, fit_images
from fer_jax.errors import UserError
from fer_jax.evaluation.audit import FlagsN, ScoresN, epoch_margins
from fer_jax.evaluation.folds import fold_directory
from fer_jax.evaluation.inference import make_predict, predict_split
from fer_jax.evaluation.predictions import load_predictions
from fer_jax.evaluation.scores import ensemble_probabilities
from fer_jax.evaluation.ssim import score_images, ssim
from fer_jax.members import Member, load_group
from fer_jax.training.checkpoints import Checkpoints

_BATCH = 256  # images translated and compared at a time


def audited_config(config: ConfigDict) -> ConfigDict:
    """The configuration whose training split is audited: pictures that were added are left out.

    Raises:
        UserError: if it draws folds of its own, or has teachers.
    """
    if config.data.folds:
        raise UserError(
            f'config.data.folds={config.data.folds} makes a training split per fold; an audit draws its own: '
            '--config.data.folds=0 and, if other than 3 are wanted, --folds=N'
        )
    if config.train.teachers:
        raise UserError(
            'config.train.teachers have learned the labels that an audit judges; leave them out: '
            '--config.train.teachers=()'
        )
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.data.extra = ()
    return config.lock()


def fold_config(config: ConfigDict, dataset: Dataset, folds: int) -> ConfigDict:
    """The cross-validation of the training split alone; its validation and test images are in no fold.

    Nothing is chosen: each fold is predicted by the last members of the run on all others. Images of one subject stay
    together where subjects are named.

    Raises:
        UserError: if validation would have a say.
    """
    config = _of_training_alone(config)
    with config.unlocked():
        config.data.folds, config.data.fold_of, config.data.fold_validation = folds, 'train', False
        subjects = dataset.splits['train'].extra.get('subject', np.array(['']))
        if config.data.fold_by == 'subject' and (subjects == '').any():
            config.data.fold_by = 'image'
    return config.lock()


def _of_training_alone(config: ConfigDict) -> ConfigDict:
    """A copy whose length and rates go by the training images alone, unlocked."""
    if config.task != 'classify':
        raise UserError(f'config.task is {config.task}; this method goes by classifiers, so give the file of one')
    if config.schedule.name == 'plateau':
        raise UserError(
            'config.schedule.name=plateau goes by the validation loss, which has no say in an audit; '
            'give --config.schedule.name=cosine, and as many --config.train.steps=N as it should take'
        )
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.train.early_stopping = 0
        config.evaluation.last = max(1, config.evaluation.last)  # not the best one by validation
    return config


def out_of_fold(config: ConfigDict, dataset: Dataset, directory: Path) -> Float[np.ndarray, 'N K']:
    """Each training image's probabilities from networks that were not trained on it; trains what is missing.

    Args:
        config: from `fold_config`.
        directory: of the folds.

    Raises:
        UserError: as training and cross-validation do.
        Stopped: after SIGTERM or SIGINT; the same call goes on.
    """
    crossvalidate.crossvalidate(config, os.fspath(directory), range(config.data.folds))
    said = [
        load_predictions(fold_directory(directory, fold) / 'predictions' / 'test.npz')
        for fold in range(config.data.folds)
    ]
    place = {identity: row for row, identity in enumerate(np.concatenate([part.ids for part in said]).tolist())}
    order = [place[identity] for identity in dataset.splits['train'].ids.tolist()]
    return np.concatenate([ensemble_probabilities(part.logits) for part in said])[order]


def margins_in_training(
    config: ConfigDict, dataset: Dataset, directory: Path
) -> tuple[Float[np.ndarray, 'E N'], Int[np.ndarray, 'E N']]:
    """Margins and rivals (`epoch_margins`) of one run's checkpoints, one per epoch, on the images it is trained on.

    The run is trained if it is not there yet, and keeps all its epochs. Its checkpoints are read a few at a time, and
    what they said is kept.

    Raises:
        UserError: as training does.
        Stopped: after SIGTERM or SIGINT; the same call goes on.
    """
    train.train(_of_all_epochs(config, dataset), os.fspath(directory))
    run, split = run_json.read_run(os.fspath(directory)), dataset.splits['train']
    kept = directory / 'margins'
    kept.mkdir(exist_ok=True)
    steps = Checkpoints(os.fspath(directory)).members(run.config.checkpoint.keep_last)
    missing = [step for step in steps if not (kept / f'{step}.npz').exists()]
    if missing:
        split = experiment.hold_images(dataset, 'train').splits['train']
    for step in tqdm(missing, desc='checkpoints', unit='checkpoint', disable=not sys.stderr.isatty()):
        model, variables_M = load_group([Member(run, step)])
        logits = _predict(model, run.preprocessing)(variables_M, split.images, run.config.evaluation.batch_size)
        margins_N, rivals_N = epoch_margins(logits[0], split.labels)
        aside = kept / f'{step}.partial'
        with aside.open('wb') as file:
            np.savez(file, margins=margins_N, rivals=rivals_N)
        os.replace(aside, kept / f'{step}.npz')
    found = []
    for step in steps:
        with np.load(kept / f'{step}.npz') as file:
            found.append((file['margins'], file['rivals']))
    margins_EN, rivals_EN = (np.stack(part) for part in zip(*found, strict=True))
    return margins_EN, rivals_EN


def _of_all_epochs(config: ConfigDict, dataset: Dataset) -> ConfigDict:
    """The run whose checkpoints, one per epoch, are all kept; nothing is scored at its end."""
    steps_per_epoch = len(dataset.splits['train']) / config.train.batch_size
    steps = config.train.steps or round(config.train.epochs * steps_per_epoch)
    config = _of_training_alone(config)
    with config.unlocked():
        config.evaluation.every_steps, config.evaluation.last, config.evaluation.splits = 0, 1, ()
        config.checkpoint.every_steps, config.checkpoint.snapshot_steps = 0, 0
        config.checkpoint.keep_last = steps // max(1, round(steps_per_epoch)) + 1
    return config.lock()


@functools.lru_cache(maxsize=1)
def _predict(model, preprocessing):
    predict = make_predict(model, preprocessing)
    return lambda variables, images, batch: predict_split(predict, variables, images, batch)


class Translations:
    """Trained pairs, put to the use of an audit: every class is translated by one of them, if there is one."""

    def __init__(self, pairs: Sequence[str], class_names: Sequence[str]):
        """Loads the pairs of the directories.

        A class that several translate goes the way that a pair was trained for before the way back, and among equals
        to the class that comes first in `class_names`.
        """
        found = translators.load_translators(translators.find_pairs(pairs))
        forward = {(source, target) for source, target in found if self._trained_as(found[source, target])}
        order = lambda key: (key not in forward, class_names.index(key[1]) if key[1] in class_names else 99)
        self.of_class = {}
        for source, target in sorted(found, key=order):
            self.of_class.setdefault(source, found[source, target])
        self._class_names = class_names

    def similarities(self, split: Split) -> tuple[ScoresN, FlagsN]:
        """SSIM of every image with its translation, and for which images there is one; no augmentation.

        Each image is scored once, by its id, whatever the batch that it is in.
        """
        ssim_N, scored_N = np.full(len(split), np.nan), np.zeros(len(split), bool)
        for name, translator in self.of_class.items():
            if name not in self._class_names:
                continue
            rows = np.flatnonzero(split.labels == self._class_names.index(name))
            images = fitted(split, rows, translator)
            score = lambda batch, translator=translator: ssim(batch, translator(batch))
            words = f'{name} to {translator.target}' if sys.stderr.isatty() else None
            scores = score_images(score, split.ids[rows], images, batch_size=_BATCH, progress=words)
            ssim_N[rows] = [scores[identity] for identity in split.ids[rows].tolist()]
            scored_N[rows] = True
        return ssim_N, scored_N

    def described(self) -> dict[str, dict[str, Any]]:
        """For audit.json: by class, the emotion that it is translated to, by the checkpoint of which run."""
        return {
            name: {'target': of.target, 'run': of.workdir, 'step': of.step}
            for name, of in self.of_class.items()
            if name in self._class_names
        }

    def translate(self, split: Split, rows: np.ndarray) -> list[tuple[str, np.ndarray] | None]:
        """The target emotion and the translation (uint8 [S, S, C]) of some images; None where no pair serves one."""
        found: list[tuple[str, np.ndarray] | None] = [None] * len(rows)
        for name, translator in self.of_class.items():
            places = [at for at, row in enumerate(rows) if self._class_names[split.labels[row]] == name]
            images = np.asarray(translator(np.asarray(fitted(split, rows[places], translator)))) if places else ()
            for at, image in zip(places, images, strict=True):
                found[at] = (translator.target, image)
        return found

    @staticmethod
    def _trained_as(translator: translators.Translator) -> bool:
        pair = run_json.read_run(translator.workdir).config.pair
        return tuple(pair) == (translator.source, translator.target)


def fitted(split: Split, rows: np.ndarray, translator: translators.Translator) -> np.ndarray | StoredImages:
    """The images of some rows, as a translator takes them; prepared ones are read when they are indexed."""
    how = (translator.size, translator.channels)
    if isinstance(split.images, StoredImages):
        return split.images.select(rows).fit(*how)
    return fit_images(split.images[rows], *how)
