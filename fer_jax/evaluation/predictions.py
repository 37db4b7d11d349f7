"""The predictions file: what every member said about every example of one split.

Shapes: M members, N examples, K classes.
"""

from __future__ import annotations

import dataclasses
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from fer_jax.errors import UserError

LabelsN = Int[np.ndarray, 'N']
FlagsN = Bool[np.ndarray, 'N']
StepsM = Int[np.ndarray, 'M']
LogitsMNK = Float[np.ndarray, 'M N K']
NamesK = Shaped[np.ndarray, 'K']
NamesM = Shaped[np.ndarray, 'M']
NamesN = Shaped[np.ndarray, 'N']


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The logits of M members for the N examples of one split, in the split's order.

    Attributes:
        ids: str [N], unique.
        labels: int32 [N], indices into `class_names`.
        logits: float32 [M, N, K], finite.
        steps: int64 [M], the training step of each member.
        class_names: str [K].
        twin_in_train: bool [N], true where the training split used holds the same image, pixel for pixel.
        member_names: str [M], for people: `run_seed0@1000`.
        member_runs: str [M], the run that each member comes from.
    """

    ids: NamesN
    labels: LabelsN
    logits: LogitsMNK
    steps: StepsM
    class_names: NamesK
    twin_in_train: FlagsN
    member_names: NamesM
    member_runs: NamesM

    @property
    def num_members(self) -> int:
        return self.logits.shape[0]

    @property
    def num_examples(self) -> int:
        return self.logits.shape[1]

    @property
    def num_classes(self) -> int:
        return self.logits.shape[2]


_DAMAGE = (ValueError, TypeError, AttributeError, RuntimeError, EOFError, OSError, zipfile.BadZipFile, zlib.error)
_DTYPES = {'labels': np.int32, 'logits': np.float32, 'steps': np.int64, 'twin_in_train': np.bool_}
_AXES = {
    'ids': 'N',
    'labels': 'N',
    'logits': 'MNK',
    'steps': 'M',
    'class_names': 'K',
    'twin_in_train': 'N',
    'member_names': 'M',
    'member_runs': 'M',
}


def save_predictions(path: str | os.PathLike[str], predictions: Predictions) -> None:
    """Writes the predictions as a compressed npz, aside first, so that a reader never sees half a file.

    Raises:
        UserError: if the arrays disagree with each other, or a member's logits are not finite.
    """
    path = Path(path)
    arrays = {name: _typed(name, getattr(predictions, name)) for name in _AXES}
    _refuse_disagreement(arrays, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + '.partial')
    with aside.open('wb') as file:
        np.savez_compressed(file, **arrays)
    os.replace(aside, path)


def load_predictions(path: str | os.PathLike[str]) -> Predictions:
    """Reads what `save_predictions` wrote.

    Raises:
        UserError: if the file is missing, is not an intact npz, lacks an array, or its arrays disagree.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'{path} does not exist; fer_jax.evaluate writes it')
    try:
        # Opened here, since np.load leaves a file open that it cannot read.
        with path.open('rb') as file, np.load(file, allow_pickle=False) as archive:
            missing = [name for name in _AXES if name not in archive.files]
            if missing:
                raise UserError(f'{path} is no predictions file: it lacks {", ".join(missing)}')
            arrays = {name: _typed(name, archive[name]) for name in _AXES}
    except _DAMAGE as error:
        raise UserError(f'{path} is damaged or not an npz file ({error}); run fer_jax.evaluate again') from error
    _refuse_disagreement(arrays, str(path))
    return Predictions(**arrays)


def _typed(name: str, values: np.ndarray) -> np.ndarray:
    return np.asarray(values, _DTYPES.get(name, np.str_))


def _refuse_disagreement(arrays: dict[str, np.ndarray], source: str) -> None:
    logits = arrays['logits']
    if logits.ndim != 3 or 0 in logits.shape:
        raise UserError(f'{source}: logits have shape {list(logits.shape)}, expected [members, examples, classes]')
    sizes = dict(zip('MNK', logits.shape, strict=True))
    for name, axes in _AXES.items():
        expected = tuple(sizes[axis] for axis in axes)
        if arrays[name].shape != expected:
            raise UserError(
                f'{source}: {name} has shape {list(arrays[name].shape)}, '
                f'but logits {list(logits.shape)} ask for {list(expected)}'
            )
    labels = arrays['labels']
    if labels.min() < 0 or labels.max() >= sizes['K']:
        raise UserError(f'{source}: labels run from {labels.min()} to {labels.max()}, expected 0 to {sizes["K"] - 1}')
    ids, counts = np.unique(arrays['ids'], return_counts=True)
    if len(ids) < sizes['N']:
        raise UserError(f'{source}: the id {str(ids[counts.argmax()])!r} occurs more than once; ids must be unique')
    for name, finite in zip(arrays['member_names'], np.isfinite(logits).all(axis=(1, 2)), strict=True):
        if not finite:
            raise UserError(f'{source}: the logits of {name} are not finite; its training diverged, so leave it out')
