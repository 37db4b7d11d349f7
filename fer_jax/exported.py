"""Classifiers as files hold them: one function from a face's pixels to probabilities, and what it says of itself.

Shape letters: N faces, M members, K classes, S pixels a side, C channels.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

import fer_jax
from fer_jax import run_json, zoo
from fer_jax.apps.recognized import EMOJI
from fer_jax.data.preprocess import views
from fer_jax.errors import UserError
from fer_jax.evaluation.inference import logits_of_views
from fer_jax.faces.align import BOX_SHARE
from fer_jax.faces.face import POINTS, TEMPLATE
from fer_jax.members import Member, choose_members, find_runs, group_members, load_group, usual_tta
from fer_jax.models.convolution import as_written

SCHEMA = 1  # raised whenever a field of a description changes its meaning or goes; new fields do not raise it
VIEWS = ('none', 'flip')  # of test-time augmentation; crops that are enlarged again do not go into ONNX
INPUT, OUTPUTS = 'pixels', ('probabilities', 'logits')
CLOSE = 1e-4  # what a written file may differ by
_TRIED = (1, 2, 7)  # sizes of the batches that a written file is tried with
_PACKAGES = ('jax', 'flax', 'jax2onnx', 'onnx')

Read = Callable[[UInt8[Array, 'N S S C']], tuple[Float[Array, 'N K'], Float[Array, 'N M K']]]


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """Members that get the same pixels of a face.

    shape: (S, S, C) of the pictures.
    read: from pictures to probabilities, the mean of the members', and to each member's logits.
    description: what a file of it says of itself (docs/export.md).
    """

    shape: tuple[int, int, int]
    read: Read
    description: dict[str, Any]

    def samples(self) -> np.ndarray:
        """Pictures to try a file with: noise, and one that is even."""
        pixels_NSSC = np.random.default_rng(0).integers(0, 256, (max(_TRIED), *self.shape)).astype(np.uint8)
        pixels_NSSC[1] = 90
        return pixels_NSSC


def load_classifiers(runs: Sequence[str], last: int = 0, tta: str | None = None) -> list[Classifier]:
    """The members of runs, those that get the same pixels together.

    Args:
        runs, last, tta: as `fer_jax.Recognizer` takes them; crops are refused.

    Raises:
        UserError: if a run is missing, damaged or not trained, or the runs do not fit together.
    """
    runs = runs or [zoo.DEFAULT]
    tta = usual_tta(runs) if tta is None else tta
    if tta not in VIEWS:
        raise UserError(f'test-time augmentation {tta!r} cannot be exported; take --tta={" or --tta=".join(VIEWS)}')
    return [_classifier(alike, tta) for alike in _group(runs, last)]


def load_classifier(runs: Sequence[str], last: int = 0, tta: str | None = None) -> Classifier:
    """The members of runs that all get the same pixels; else as `load_classifiers`."""
    classifier, *others = load_classifiers(runs, last, tta)
    if others:
        one, other = (each.description['members'][0]['run'] for each in (classifier, others[0]))
        raise UserError(
            f'{one} and {other} get faces of other sizes, channels or alignment; one file has one input: '
            'export them apart'
        )
    return classifier


def _group(workdirs: Sequence[str], last: int) -> list[list[list[Member]]]:
    """Of all members those that get the same pixels, and of these those whose parameters stack."""
    if last < 0:
        raise UserError(f'--last={last}: a count of checkpoints is wanted, 1 or more')
    members = [member for workdir in find_runs(workdirs) for member in choose_members(workdir, last)]
    together: dict[str, list[list[Member]]] = {}
    for group in group_members(members, ('class_names',), lambda run: repr(run.align)):
        run = group[0].run
        together.setdefault(repr((run.preprocessing.size, run.preprocessing.channels, run.align)), []).append(group)
    return list(together.values())


def _classifier(groups: Sequence[Sequence[Member]], tta: str) -> Classifier:
    how = groups[0][0].run.preprocessing
    logits = [_logits(group, tta) for group in groups]

    def read(pixels):
        # Of no device's shorter floats: the same numbers everywhere.
        with jax.default_matmul_precision('highest'), as_written():
            logits_NMK = jnp.stack([each for of_group in logits for each in of_group(pixels)], 1)
        return jax.nn.softmax(logits_NMK).mean(1), logits_NMK

    members = [member for group in groups for member in group]
    return Classifier((how.size, how.size, how.channels), read, _describe(members, tta))


def _logits(group: Sequence[Member], tta: str) -> Callable[[Array], list[Array]]:
    """Each member's logits [N, K], computed in float32 whatever the run was trained in."""
    model, variables_M = load_group(group)
    model = plain(model)
    each = [jax.tree.map(lambda array, row=row: np.asarray(array[row]), variables_M) for row in range(len(group))]
    preprocessing, temperature = group[0].run.preprocessing, group[0].run.temperature

    def logits(pixels):
        inputs_NVSSC = views(pixels, tta, preprocessing).swapaxes(0, 1)
        return [logits_of_views(model, variables, inputs_NVSSC, temperature) for variables in each]

    return logits


def plain(model: nn.Module) -> nn.Module:
    """The network as files hold it: computed in float32."""
    return model.clone(dtype=jnp.float32)


def _describe(members: Sequence[Member], tta: str) -> dict[str, Any]:
    first = members[0].run
    size, channels, names = first.preprocessing.size, first.preprocessing.channels, list(first.class_names)
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        'schema': SCHEMA,
        'kind': 'classifier of faces',
        'class_names': names,
        'emoji': [EMOJI.get(name, '') for name in names],
        'input': {
            'name': INPUT,
            'type': 'uint8',
            'shape': ['N', size, size, channels],
            'axes': 'faces, rows, columns, channels',
            'channels': 'grey' if channels == 1 else 'red, green, blue',
        },
        'outputs': {
            'probabilities': {'shape': ['N', len(names)], 'of': "the mean of the members' probabilities"},
            'logits': {'shape': ['N', len(members), len(names)], 'of': 'each member'},
        },
        'outside': _outside(first),
        'inside': {'tta': tta, 'computed_in': 'float32'},
        'members': [_member(member) for member in members],
        'versions': {'fer_jax': fer_jax.__version__, **versions},
    }


def _outside(run: run_json.RunDescription) -> dict[str, Any]:
    """How a face comes to the input's pixels: what the one who calls has to do, in this order."""
    size = run.preprocessing.size
    frame: dict[str, Any] = {
        'template': TEMPLATE.tolist(),
        'template_points': list(POINTS),
        'interpolation': 'cubic, antialiased where it shrinks; the edge goes on outside the picture',
    }
    if run.align:
        frame = {'kind': 'aligned', 'detector': run.align['detector'], 'size': run.align['size'], **frame}
    else:
        frame = {
            'kind': 'square',
            'size': size,
            'share': BOX_SHARE,
            'about': "upright, about the middle of the face's box, `share` times as large as its longer side",
            'interpolation': frame['interpolation'],
        }
    weights = 'grey by ITU-R BT.601 (0.299 red, 0.587 green, 0.114 blue), rounded'
    colours = weights if run.preprocessing.channels == 1 else 'sRGB; grey pictures have three equal channels'
    return {'frame': frame, 'colours': colours, 'size': size, 'resize': 'Lanczos'}


def _member(member: Member) -> dict[str, Any]:
    run, how = member.run, member.run.preprocessing
    start = (how.size - how.input_side) // 2
    return {
        'run': member.name.rsplit('@', 1)[0],
        'step': member.step,
        'network': run.config.model.name,
        'data': run.manifest_hash,
        'temperature': run.temperature,
        'window': [start, start, how.input_side, how.input_side],
        'normalize': how.normalize,
        **({'mean': how.mean, 'deviation': how.deviation} if how.normalize == 'dataset' else {'least_deviation': 8}),
    }


def largest_difference(classifier: Classifier, run: Callable[[np.ndarray], Sequence[np.ndarray]]) -> float:
    """By how much what `run` gives for samples differs from the JAX networks, probabilities and logits alike.

    Logits of more than 1 are compared by their share. Infinite where the shapes differ.
    """
    samples, worst = classifier.samples(), 0.0
    expected = [np.asarray(array) for array in jax.jit(classifier.read)(samples)]
    for size in _TRIED:
        for ours, theirs in zip(expected, run(samples[:size]), strict=True):
            ours = ours[:size]
            if theirs.shape != ours.shape or not np.isfinite(theirs).all():
                return math.inf
            worst = max(worst, float((np.abs(ours - theirs) / np.maximum(1, np.abs(ours))).max()))
    return worst
