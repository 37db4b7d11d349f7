"""fer_jax trains, ensembles and audits facial-expression classifiers in JAX."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fer_jax.apps.recognized import RecognizedFace
    from fer_jax.recognizer import Recognizer

__version__ = '0.1.0'
__all__ = ['RecognizedFace', 'Recognizer']

_PLACES = {'Recognizer': 'fer_jax.recognizer', 'RecognizedFace': 'fer_jax.apps.recognized'}


def __getattr__(name: str):
    """Recognizer and RecognizedFace, imported when asked for: `import fer_jax` alone imports neither JAX nor NumPy."""
    if name not in _PLACES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    import importlib

    return getattr(importlib.import_module(_PLACES[name]), name)
