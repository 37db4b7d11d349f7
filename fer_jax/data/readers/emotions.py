"""The spellings of emotions in folder names and tables, and the canonical names that they mean."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from fer_jax.data.dataset import EMOTIONS
from fer_jax.data.files import printable

_SPELLINGS = {
    'anger': ('angry',),
    'contempt': ('contemptuous',),
    'disgust': ('disgusted',),
    'fear': ('fearful', 'afraid', 'scared'),
    'happiness': ('happy',),
    'neutral': ('neutrality',),
    'sadness': ('sad',),
    'surprise': ('surprised',),
}
_EMOTION_OF_SPELLING = {word: emotion for emotion in EMOTIONS for word in (emotion, *_SPELLINGS[emotion])}


def canonical(name: str) -> str | None:
    """The emotion that a word means, whatever its case; None for any other word."""
    return _EMOTION_OF_SPELLING.get(name.strip().lower())


def class_name(name: str) -> str:
    """The emotion that a word means, or else the word itself, printable, its accents in their one-character form."""
    return canonical(name) or printable(unicodedata.normalize('NFC', name.strip()))


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Class names, each once: the emotions in the order of EMOTIONS, then others alphabetically."""
    names = set(names)
    return (*(name for name in EMOTIONS if name in names), *sorted(names.difference(EMOTIONS)))
