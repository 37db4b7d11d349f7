"""The mistakes file: faces that a classifier took for something else, and where it saw what it named (Grad-CAM).

`fer_jax.report` writes `mistakes/SPLIT.npz` into a workdir, and its page is made from that. Shapes: I mistakes, S side
of what the network sees, H, W, C as stored, M members.
"""

from __future__ import annotations

import dataclasses
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from fer_jax.evaluation.paired import Answers

ChosenI = Int[np.ndarray, 'I']
ConfidencesI = Float[np.ndarray, 'I']
IdsI = Shaped[np.ndarray, 'I']
MembersM = Shaped[np.ndarray, 'M']

_DAMAGE = (ValueError, TypeError, KeyError, RuntimeError, EOFError, OSError, zipfile.BadZipFile, zlib.error)
_TOLERANCE = 1e-6  # of a confidence, between predictions made from one file twice


@dataclasses.dataclass(frozen=True)
class Mistakes:
    """Some wrong answers, in any order.

    Attributes:
        ids: str [I].
        members: str [M], `RUN@STEP` of the ensemble that answered.
        predicted: int64 [I], the class that was named.
        confidence: float64 [I], its probability.
        images: uint8 [I, H, W, C], as the data holds them.
        saw_predicted: float32 [I, S, S], 0 to 1, over the central window: where the class that was named was seen.
        saw_true: the same of the class that it is.
        shown_members: how many of the members the maps are the mean of; 0 where they could not be had and are empty.
    """

    ids: IdsI
    members: MembersM
    predicted: ChosenI
    confidence: ConfidencesI
    images: UInt8[np.ndarray, 'I H W C']
    saw_predicted: Float[np.ndarray, 'I S S']
    saw_true: Float[np.ndarray, 'I S S']
    shown_members: int

    def fits(self, answers: Answers, members: MembersM) -> bool:
        """Whether it is of these answers by these members."""
        rows = {identity: row for row, identity in enumerate(answers.ids.tolist())}
        if self.members.tolist() != members.tolist() or not set(self.ids.tolist()) <= rows.keys():
            return False
        at_I = np.array([rows[identity] for identity in self.ids.tolist()], int)
        same = np.abs(answers.confidence[at_I] - self.confidence) < _TOLERANCE
        return bool((answers.predicted[at_I] == self.predicted).all() and same.all())


def mistakes_path(workdir: str | os.PathLike[str], split: str) -> Path:
    """Where the file lies."""
    return Path(workdir) / 'mistakes' / f'{split}.npz'


def save_mistakes(path: str | os.PathLike[str], mistakes: Mistakes) -> None:
    """Writes the file, aside first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + '.partial')
    with aside.open('wb') as file:
        np.savez_compressed(file, **dataclasses.asdict(mistakes))
    os.replace(aside, path)


def load_mistakes(path: str | os.PathLike[str]) -> Mistakes | None:
    """Reads the file; None where there is none or it is damaged, as it can be made anew."""
    names = [field.name for field in dataclasses.fields(Mistakes)]
    try:
        with Path(path).open('rb') as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in names}
        count = len(arrays['ids'])
        if any(len(arrays[name]) != count for name in names if name not in ('members', 'shown_members')):
            return None
        return Mistakes(**{**arrays, 'shown_members': int(arrays['shown_members'])})
    except _DAMAGE:
        return None
