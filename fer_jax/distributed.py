"""Several processes that train one run."""

from __future__ import annotations

import jax
import numpy as np
from jax.experimental import multihost_utils


def is_main() -> bool:
    """Whether this is the process that writes reports and speaks."""
    return jax.process_index() == 0


def agree_max(value: int) -> int:
    """The greatest of the processes' values, the same in all; a collective, called by all at the same point."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.process_allgather(np.int32(value)).max())
