"""Random numbers of many dimensions, drawn in a row.

XLA's CPU backend takes seconds to compile a draw of random numbers in the shape of a kernel or of a batch of maps, for
every shape anew, and .4 s to compile the same numbers in a row (jax 0.10.2, one core of an AMD EPYC). The numbers are
the same, and the first of a longer row are those of a shorter one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax


def in_a_row(draw: Callable[..., jax.Array], key: jax.Array, shape: Sequence[int], **options: Any) -> jax.Array:
    """What `draw(key, shape=shape, **options)` of jax.random gives, its options being scalars."""
    return draw(key, shape=(math.prod(shape),), **options).reshape(shape)
