"""Synthetic faces: a data set that knows subject, emotion, intensity, blend and action units of every image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fer_jax.data.dataset import EMOTIONS, Dataset, Split, class_counts, pixel_hash
from fer_jax.data.face_parameters import FaceParameters, draw_faces, draw_uniform, stream_key
from fer_jax.data.face_renderer import draw, render
from fer_jax.data.face_units import ACTION_UNITS, PROTOTYPES, prototype_matrix
from fer_jax.errors import UserError

__all__ = (
    'ACTION_UNITS',
    'PROTOTYPES',
    'FaceParameters',
    'Truth',
    'draw',
    'load_synthetic',
    'render',
    'sample_parameters',
    'with_emotion',
)

IMAGES_PER_SUBJECT = 16
# Each split has its own range of indices, so a longer training split leaves the evaluation splits as they were.
_SPLIT_RANGES = {'train': (200_000, 1_000_000), 'validation': (100_000, 200_000), 'test': (0, 100_000)}
_LABEL_STREAM = 3
_CHUNK = 1024  # faces that one compiled program samples
_WEAKEST_UNIT = 0.75  # of the intensity: faces do not move all units of a prototype alike


@flax.struct.dataclass
class Truth:
    """What is known about each face.

    Attributes:
        subject: int32 [N].
        emotion: int32 [N], the dominant emotion, an index into EMOTIONS.
        intensity: float32 [N] in 0..1; has no effect on a pure neutral face.
        blend_emotion: int32 [N], the second emotion, -1 where there is none.
        blend_weight: float32 [N], the second emotion's share: 0 where there is none, otherwise 0.2 to 0.5.
        unit_gain: float32 [N, U], how strongly this face moves each unit.
        units: float32 [N, U], activations of ACTION_UNITS: gain times intensity times the mixed prototypes.
    """

    subject: Int[Array, ' n']
    emotion: Int[Array, ' n']
    intensity: Float[Array, ' n']
    blend_emotion: Int[Array, ' n']
    blend_weight: Float[Array, ' n']
    unit_gain: Float[Array, 'n u']
    units: Float[Array, 'n u']


@jax.jit
def _activate(truth: Truth) -> Float[Array, 'n u']:
    prototypes = jnp.asarray(prototype_matrix())
    weight = truth.blend_weight[:, None]
    mixed = (1 - weight) * prototypes[truth.emotion] + weight * prototypes[jnp.maximum(truth.blend_emotion, 0)]
    return truth.unit_gain * truth.intensity[:, None] * mixed


@jax.jit
def _sample_chunk(
    seed: jax.Array,
    indices_N: jax.Array,
    order_8: jax.Array,
    num_classes: jax.Array,
    low: float,
    high: float,
    blend_rate: float,
) -> tuple[FaceParameters, Truth]:
    """One program for all classes: the first `num_classes` of `order_8` are their places in EMOTIONS."""
    uniform = draw_uniform(stream_key(seed, _LABEL_STREAM), indices_N, 4 + len(ACTION_UNITS))
    which = (indices_N % num_classes.astype(jnp.uint32)).astype(jnp.int32)
    blended = uniform[:, 1] < blend_rate
    step = 1 + jnp.floor(uniform[:, 2] * (num_classes - 1)).astype(jnp.int32)
    subject = indices_N // IMAGES_PER_SUBJECT
    truth = Truth(
        subject=subject.astype(jnp.int32),
        emotion=order_8[which],
        intensity=low + (high - low) * uniform[:, 0],
        blend_emotion=jnp.where(blended, order_8[(which + step) % num_classes], -1),
        blend_weight=jnp.where(blended, 0.2 + 0.3 * uniform[:, 3], 0.0),
        unit_gain=_WEAKEST_UNIT + (1 - _WEAKEST_UNIT) * uniform[:, 4:],
        units=jnp.zeros((len(indices_N), len(ACTION_UNITS))),
    )
    truth = truth.replace(units=_activate(truth))
    return draw_faces(seed, subject, indices_N, truth.units), truth


def sample_parameters(
    seed: int,
    indices_N: Sequence[int] | np.ndarray,
    *,
    classes: Sequence[str] = EMOTIONS,
    min_intensity: float = 0.15,
    max_intensity: float = 1.0,
    blend_rate: float = 0.15,
) -> tuple[FaceParameters, Truth]:
    """Faces and their truth, each a function of (seed, index) alone, whatever else is in the batch.

    The emotion is classes[index % len(classes)], so that any run of indices is balanced; every 16 indices
    share a subject. Intensity is uniform in its range. Seed and indices are 0 to 2**32 - 1.
    """
    indices = np.asarray(indices_N, np.uint32)
    order_8 = np.resize([EMOTIONS.index(name) for name in classes], len(EMOTIONS)).astype(np.int32)
    parts = []
    for start in range(0, max(len(indices), 1), _CHUNK):
        chunk = np.resize(indices[start : start + _CHUNK], _CHUNK)
        sampling = (order_8, np.int32(len(classes)), min_intensity, max_intensity, blend_rate)
        parts.append(_sample_chunk(np.uint32(seed), chunk, *sampling))
    return jax.tree.map(lambda *values: np.concatenate(values)[: len(indices)], *parts)


def with_emotion(
    parameters: FaceParameters, truth: Truth, emotion: str, intensity: float | None = None
) -> tuple[FaceParameters, Truth]:
    """The same faces, poses, light, background and noise under another, unblended emotion: the paired truth.

    Args:
        intensity: 0..1 for all faces; None keeps each face's own.
    """
    if emotion not in EMOTIONS:
        raise UserError(f'there is no emotion {emotion!r}; there are {", ".join(EMOTIONS)}')
    truth = truth.replace(
        emotion=np.full_like(truth.emotion, EMOTIONS.index(emotion)),
        intensity=truth.intensity if intensity is None else np.full_like(truth.intensity, intensity),
        blend_emotion=np.full_like(truth.blend_emotion, -1),
        blend_weight=np.zeros_like(truth.blend_weight),
    )
    truth = truth.replace(units=_activate(truth))
    return parameters.replace(units=truth.units), truth


def _load_split(
    name: str, count: int, seed: int, size: int, channels: int, classes: Sequence[str], sampling: dict[str, float]
) -> Split:
    start, end = _SPLIT_RANGES[name]
    if not 0 <= count <= end - start:
        raise UserError(f'{count} synthetic faces for {name}; there can be 0 to {end - start}')
    indices = np.arange(start, start + count)
    parameters, truth = sample_parameters(seed, indices, classes=classes, **sampling)
    images = render(parameters, size, channels)
    class_of = np.array([classes.index(emotion) if emotion in classes else -1 for emotion in EMOTIONS] + [-1], np.int32)
    labels = class_of[np.asarray(truth.emotion)]
    extra = {
        'subject': np.array([f'{subject:05d}' for subject in np.asarray(truth.subject)], dtype='<U5'),
        'intensity': np.asarray(truth.intensity),
        'blend_emotion': class_of[np.asarray(truth.blend_emotion)],
        'blend_weight': np.asarray(truth.blend_weight),
        'units': np.asarray(truth.units),
        'true_label': labels.copy(),
    }
    ids = np.array([f'synthetic_{index:06d}' for index in indices], dtype='<U16')
    return Split(images, labels, ids, np.array([pixel_hash(image) for image in images], dtype='<U32'), extra)


def _checksum(splits: dict[str, Split]) -> str:
    digest = hashlib.sha256()
    for split in splits.values():
        digest.update('\n'.join(split.ids).encode())
        digest.update(split.labels.tobytes())
        digest.update(split.images.tobytes())
    return digest.hexdigest()


def load_synthetic(
    num_train: int = 8000,
    num_validation: int = 1000,
    num_test: int = 2000,
    *,
    size: int = 48,
    channels: int = 1,
    seed: int = 0,
    classes: Sequence[str] = EMOTIONS,
    min_intensity: float = 0.15,
    max_intensity: float = 1.0,
    blend_rate: float = 0.15,
) -> Dataset:
    """Draws a data set; no subject is in two splits.

    Each split's `extra` holds `subject`, `intensity`, `blend_emotion` (class index, -1 for none), `blend_weight`,
    `units` [N, U] and `true_label`, which label noise leaves as it is.

    Raises:
        UserError: if an argument is out of its range or a class is unknown.
    """
    arguments: dict[str, Any] = {**locals(), 'classes': list(classes)}
    unknown = [name for name in classes if name not in EMOTIONS]
    if unknown or len(set(classes)) < 2:
        raise UserError(f'classes are {", ".join(classes)}; choose two or more of {", ".join(EMOTIONS)}')
    if not 0 <= min_intensity <= max_intensity <= 1 or not 0 <= blend_rate <= 1:
        raise UserError('synthetic faces need 0 <= min_intensity <= max_intensity <= 1 and a blend_rate in 0..1')
    if size < 8 or channels not in (1, 3):
        raise UserError(f'synthetic faces cannot have size {size} with {channels} channels; at least 8, and 1 or 3')
    names = tuple(emotion for emotion in EMOTIONS if emotion in classes)
    sampling = {'min_intensity': min_intensity, 'max_intensity': max_intensity, 'blend_rate': blend_rate}
    splits = {
        name: _load_split(name, count, seed, size, channels, names, sampling)
        for name, count in (('train', num_train), ('validation', num_validation), ('test', num_test))
    }
    manifest = {
        'dataset': 'synthetic',
        'source': 'drawn by fer_jax.data.synthetic',
        'class_names': list(names),
        'arguments': arguments,
        'counts': {name: class_counts(split.labels, names) for name, split in splits.items()},
        'sha256': _checksum(splits),
    }
    return Dataset('synthetic', names, splits, manifest)
