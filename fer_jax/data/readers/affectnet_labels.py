"""AffectNet's labels, the choice of 8, 7 or 5 classes, and its valence, arousal and landmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fer_jax.data.dataset import EMOTIONS
from fer_jax.data.readers.emotions import canonical
from fer_jax.data.readers.npy import parse_number
from fer_jax.errors import UserError

_EMOTIONS_BY_LABEL = ('neutral', 'happiness', 'sadness', 'surprise', 'fear', 'disgust', 'anger', 'contempt')
_NO_EMOTIONS = {8: 'none', 9: 'uncertain', 10: 'no face'}
_NO_EMOTION_FOLDERS = {
    'none': 8,
    'uncertain': 9,
    **dict.fromkeys(('no-face', 'no_face', 'no face', 'noface', 'non-face', 'nonface'), 10),
}
# The five that EmoNet (Toisoul et al. 2021) and Intel's emotions-recognition-retail-0003 report on AffectNet.
_FIVE = ('anger', 'happiness', 'neutral', 'sadness', 'surprise')
_CHOICES = {0: EMOTIONS, 8: EMOTIONS, 7: tuple(name for name in EMOTIONS if name != 'contempt'), 5: _FIVE}
_NO_VALUE = -2  # valence and arousal of a face without emotion
_POINTS = 68


def chosen_emotions(classes: int) -> tuple[str, ...]:
    """The class names: all eight, seven (no contempt), or the five above.

    Raises:
        UserError: for another number.
    """
    if classes not in _CHOICES:
        raise UserError(
            f'AffectNet with {classes} classes is not known; known: 8, 7 (no contempt) and 5 ({", ".join(_FIVE)})'
        )
    return _CHOICES[classes]


def emotion_of(label: np.ndarray | str, emotions: Sequence[str]) -> str:
    """The emotion of AffectNet's number.

    Raises:
        ValueError: if it is no such number, no emotion, or none of the chosen ones.
    """
    value = parse_number(label)
    if not value.is_integer() or not 0 <= value <= max(_NO_EMOTIONS):
        raise ValueError(f'unknown label {value:g}; it can be 0 to {max(_NO_EMOTIONS)}')
    if value in _NO_EMOTIONS:
        raise ValueError(f'label {value:g} ({_NO_EMOTIONS[int(value)]}) is no emotion')
    return _chosen(_EMOTIONS_BY_LABEL[int(value)], emotions)


def emotion_of_folder(name: str, emotions: Sequence[str]) -> str:
    """The emotion of a folder named by a word or by AffectNet's number.

    Raises:
        ValueError: as `emotion_of`.
    """
    name = name.strip()
    if name.isdecimal():
        return emotion_of(name, emotions)
    if name.lower() in _NO_EMOTION_FOLDERS:
        return emotion_of(str(_NO_EMOTION_FOLDERS[name.lower()]), emotions)
    emotion = canonical(name)
    if emotion is None:
        raise ValueError(f'unknown emotion folder {name[:20]!r}')
    return _chosen(emotion, emotions)


def numbers_of(values: Mapping[str, np.ndarray | str | None]) -> dict[str, np.ndarray]:
    """`val`, `aro` and `lnd` as valence and arousal (float32, -1 to 1) and landmarks (float32 [68, 2]).

    Landmarks are x and y in the pixels of the whole picture, before a box is cut out. What is not there is NaN, and so
    is a valence or arousal of -2.

    Raises:
        ValueError: on anything that is no such number.
    """
    makers = {'val': ('valence', _affect), 'aro': ('arousal', _affect), 'lnd': ('landmarks', _landmarks)}
    numbers = {}
    for kind, value in values.items():
        name, make = makers[kind]
        try:
            numbers[name] = make(value)
        except ValueError as error:
            raise ValueError(f'{name}: {error}') from None
    return numbers


def _chosen(emotion: str, emotions: Sequence[str]) -> str:
    if emotion not in emotions:
        raise ValueError(f'{emotion} is not among the {len(emotions)} classes asked for')
    return emotion


def _affect(value: np.ndarray | str | None) -> np.ndarray:
    if value is None or (isinstance(value, str) and not value):
        return np.array(np.nan, np.float32)
    number = parse_number(value)
    if number == _NO_VALUE:
        return np.array(np.nan, np.float32)
    if abs(number) > 1:
        raise ValueError(f'{number:g} is outside -1 to 1')
    return np.array(number, np.float32)


def _landmarks(value: np.ndarray | str | None) -> np.ndarray:
    if value is None or (isinstance(value, str) and not value):
        return np.full((_POINTS, 2), np.nan, np.float32)
    if isinstance(value, str):
        value = np.array([parse_number(word) for word in value.split(';')])
    if value.size != 2 * _POINTS:
        raise ValueError(f'{value.size} numbers instead of {_POINTS} x 2')
    with np.errstate(all='ignore'):  # what overflows is infinite, and so refused
        points = value.astype(np.float32).reshape(_POINTS, 2)
    if not np.isfinite(points).all():
        raise ValueError('a coordinate that is not finite')
    return points
