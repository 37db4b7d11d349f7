"""Wrong labels put into a training split on purpose, the truth kept: what methods that find them are measured on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fer_jax.data.change_files import with_training
from fer_jax.data.dataset import Dataset
from fer_jax.errors import UserError

KINDS = ('symmetric', 'confusion')


def add_label_noise(dataset: Dataset, rate: float, kind: str, seed: int, confusion: str) -> Dataset:
    """Makes a share of the training labels wrong; `extra['true_label']` keeps what they were.

    Args:
        rate: share of all training labels, 0 to 1; 0 leaves everything as it is.
        kind: `symmetric`: any label, any other class; `confusion`: as a classifier confuses them.
        seed: the same one with the same images makes the same labels wrong.
        confusion: for `confusion`: a run's scores.json, whose matrix on validation gives the odds.

    Raises:
        UserError: if one of these does not fit.
    """
    if kind not in KINDS:
        raise UserError(f'config.data.noise.kind is {kind!r}; it can be {" or ".join(KINDS)}')
    if not 0 <= rate <= 1:
        raise UserError(f'config.data.noise.rate is {rate}; a number from 0 to 1 is wanted')
    if not rate:
        return dataset
    if (kind == 'confusion') != bool(confusion):
        raise UserError(
            f'config.data.noise.kind={kind} goes with '
            + ('config.data.noise.confusion, the scores.json of a run' if kind == 'confusion' else 'no confusion file')
        )
    table, files = read_confusion(confusion, dataset.class_names) if confusion else (None, [])
    train = dataset.splits['train']
    noisy_N = inject_label_noise(train.labels, len(dataset.class_names), rate, seed, table)
    told = {'rate': rate, 'kind': kind, 'seed': seed, 'files': files}
    told |= {'wrong': int((noisy_N != train.labels).sum()), 'before': len(train)}
    train = dataclasses.replace(train, labels=noisy_N, extra={'true_label': train.labels.copy(), **train.extra})
    return with_training(dataset, train, 'noise', told)


def read_confusion(path: str, class_names: Sequence[str]) -> tuple[np.ndarray, list[dict]]:
    """The confusion matrix [K, K] of a scores.json's ensemble on validation, and the file for the manifest.

    Raises:
        UserError: if there is none, or not of these classes.
    """
    field = f'config.data.noise.confusion={path}'
    if not Path(path).is_file():
        raise UserError(f'{field} is not there; the scores.json of a run with a validation split is wanted')
    content = Path(path).read_bytes()
    try:
        scores = json.loads(content)['validation']
        names, table = list(scores['class_names']), np.array(scores['ensemble']['confusion'], np.float64)
        if table.shape != (len(names), len(names)):
            raise ValueError(f'{table.shape} confusions of {len(names)} classes')
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{field} is no scores.json with a confusion matrix of validation ({error!r})') from None
    missing = [name for name in class_names if name not in names]
    if missing:
        raise UserError(f'{field} knows {", ".join(names)}, and not {missing[0]}')
    of = [names.index(name) for name in class_names]
    return table[np.ix_(of, of)], [{'file': path, 'sha256': hashlib.sha256(content).hexdigest()}]


def inject_label_noise(
    labels_N: np.ndarray, num_classes: int, rate: float, seed: int, confusion: np.ndarray | None = None
) -> np.ndarray:
    """Labels of which exactly round(rate * N) are wrong; the caller keeps the true ones.

    Args:
        confusion: [K, K], rows are the true classes. A label is picked in proportion to its row's share off the
            diagonal, and changes to another class in proportion to that row. None: any label, any other class.

    Raises:
        UserError: if the confusion matrix does not fit, or too few labels can be confused.
    """
    labels = np.asarray(labels_N, np.int32)
    table = np.ones((num_classes, num_classes)) if confusion is None else np.array(confusion, np.float64)
    if table.shape != (num_classes, num_classes) or (table < 0).any() or not 0 <= rate <= 1:
        raise UserError(f'label noise needs a rate in 0..1 and a {num_classes}x{num_classes} table, none below 0')
    total = table.sum(1)
    np.fill_diagonal(table, 0)
    wrong = table.sum(1)
    share = (wrong / np.maximum(total, 1e-12))[labels]
    count = round(rate * len(labels))
    if count > (share > 0).sum():
        raise UserError(f'{count} labels should be wrong, but only {(share > 0).sum()} are of a class that is confused')
    noisy = labels.copy()
    if count == 0:
        return noisy
    rng = np.random.default_rng(seed)
    picked = rng.choice(len(labels), count, replace=False, p=share / share.sum())
    cumulative = np.cumsum(table / np.maximum(wrong, 1e-12)[:, None], axis=1)[labels[picked]]
    # The last class with any share takes what rounding leaves over.
    last = num_classes - 1 - np.argmax(table[:, ::-1] > 0, axis=1)
    drawn = (rng.random((count, 1)) >= cumulative).sum(1)
    noisy[picked] = np.minimum(drawn, last[labels[picked]])
    return noisy
