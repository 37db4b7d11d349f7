"""The methods of an audit by name: what each judges a training split by, and what it flags by itself."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from fer_jax import evidence, experiment, translators
from fer_jax.data.change_files import class_index, read_rows
from fer_jax.data.dataset import Dataset, votes_per_class
from fer_jax.errors import UserError
from fer_jax.evaluation import audit as methods
from fer_jax.evaluation.audit import Audit
from fer_jax.evaluation.folds import fold_directory, training_seconds

MOST_REVIEWED = 500  # suspects on the review page, unless asked otherwise


@dataclasses.dataclass(frozen=True)
class Options:
    """What a method may be told, the flags of the command.

    Attributes:
        share: of the images, to flag those of the highest scores; None: the method's own rule.
        threshold: the score above which an image is flagged; None: the method's own rule.
        pairs: directories of trained pairs, for `ssim`.
        runs: where the networks lie that the methods need; '' for `runs` under the output.
        folds: of the out-of-fold predictions.
        like: an audit's CSV, of which `random` flags as many per class.
        seed: of `random`.
        review: how many suspects the page shows, at most.
    """

    share: float | None = None
    threshold: float | None = None
    pairs: tuple[str, ...] = ()
    runs: str = ''
    folds: int = 3
    like: str = ''
    seed: int = 0
    review: int = MOST_REVIEWED


class Subject:
    """The training split under audit, and what is known of it, each part made when it is first asked for."""

    def __init__(self, config: ConfigDict, options: Options, output: str):
        self.config, self.options = evidence.audited_config(config), options
        self.runs = Path(options.runs or os.path.join(output, 'runs'))
        self.dataset: Dataset = experiment.load_data(self.config)
        self.split = self.dataset.splits['train']

        self.folds, self.epochs = self.runs / f'folds{options.folds}', self.runs / 'epochs'

    @functools.cached_property
    def fold_config(self) -> ConfigDict:
        return evidence.fold_config(self.config, self.dataset, self.options.folds)

    @functools.cached_property
    def probabilities_NK(self) -> np.ndarray:
        return evidence.out_of_fold(self.fold_config, self.dataset, self.folds)

    @functools.cached_property
    def margins(self) -> tuple[np.ndarray, np.ndarray]:
        return evidence.margins_in_training(self.config, self.dataset, self.epochs)

    @functools.cached_property
    def translations(self) -> evidence.Translations:
        if not self.options.pairs:
            raise UserError('ssim compares images with their translations; give --pairs=DIR, trained pairs')
        return evidence.Translations(self.options.pairs, self.dataset.class_names)

    @property
    def everyone(self) -> np.ndarray:
        return np.ones(len(self.split), bool)


def _of_probabilities(method: Callable) -> Callable[[Subject], tuple[Audit, np.ndarray]]:
    def judge(subject: Subject) -> tuple[Audit, np.ndarray]:
        return method(subject.probabilities_NK, subject.split.labels, subject.options.share), subject.everyone

    return judge


def _aum(subject: Subject) -> tuple[Audit, np.ndarray]:
    return methods.area_under_margin(*subject.margins, subject.options.share), subject.everyone


def _consensus(subject: Subject) -> tuple[Audit, np.ndarray]:
    found = subject.probabilities_NK, subject.split.labels, *subject.margins
    return methods.consensus(*found, subject.options.share), subject.everyone


def _vote_entropy(subject: Subject) -> tuple[Audit, np.ndarray]:
    data = subject.config.data
    votes_NK = votes_per_class(subject.dataset, data.drop, data.rename, fewest=1)
    return methods.vote_entropy(votes_NK, subject.split.labels, subject.options.share), subject.everyone


def _ssim(subject: Subject) -> tuple[Audit, np.ndarray]:
    ssim_N, scored_N = subject.translations.similarities(subject.split)
    if not scored_N.any():
        translated = ', '.join(subject.translations.of_class)
        raise UserError(f'ssim: the pairs translate {translated}, and {subject.dataset.name} has no image of these')
    return methods.similarity(ssim_N[scored_N], subject.options.share), scored_N


def _random(subject: Subject) -> tuple[Audit, np.ndarray]:
    options, names = subject.options, subject.dataset.class_names
    if (options.share is None) == (not options.like):
        raise UserError('random flags --share=S of the images, or as many per class as --like=OTHER.csv; give one')
    rows = read_rows(options.like, '--like', ('label', 'flag')) if options.like else None
    flagged = [
        class_index(cells['label'], names, f'{rows.path}:{line}')
        for line, cells in (rows.rows if rows else ())
        if cells['flag'] == '1'
    ]
    counts = np.bincount(flagged, minlength=len(names)) if options.like else ()
    return methods.at_random(subject.split.labels, len(names), options.seed, options.share, counts), subject.everyone


@dataclasses.dataclass(frozen=True)
class Method:
    """How a method judges a split, and in words what it flags by itself and the score that this is, if it is one."""

    judge: Callable[[Subject], tuple[Audit, np.ndarray]]
    rule: str
    threshold: float | None = None


METHODS = {
    'ssim': Method(_ssim, 'the image is more like its translation than 0.85 (SSIM)', 0.85),
    'confident_learning': Method(
        _of_probabilities(methods.confident_learning),
        'its label is among the least likely, as many per pair of classes as are estimated to be wrong',
    ),
    'self_confidence': Method(
        _of_probabilities(methods.self_confidence), 'the label has a probability under one half', 0.5
    ),
    'margin': Method(_of_probabilities(methods.margin), 'another class is more probable than the label', 0.0),
    'aum': Method(_aum, 'another class was ahead of the label in training, on average', 0.0),
    'consensus': Method(_consensus, 'another class was ahead of the label both out of fold and in training'),
    'vote_entropy': Method(_vote_entropy, 'half of the annotators or fewer chose the label'),
    'random': Method(_random, 'it is drawn by lot'),
}


OUT_OF_FOLD = ('confident_learning', 'self_confidence', 'margin', 'consensus')
IN_TRAINING = ('aum', 'consensus')


def trained_for(subject: Subject, name: str) -> float:
    """Seconds that the networks were trained, so far, which a method goes by; several may go by the same."""
    runs = []
    if name in IN_TRAINING:
        runs.append(subject.epochs)
    if name in OUT_OF_FOLD:
        runs += [fold_directory(subject.folds, fold) for fold in range(subject.options.folds)]
    if name == 'ssim' and subject.options.pairs:
        runs += map(Path, translators.find_pairs(subject.options.pairs))
    return sum(map(training_seconds, runs), 0.0)
