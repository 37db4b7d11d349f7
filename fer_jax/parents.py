"""A process that ends when the one that started it is gone."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PARENT = 'FER_JAX_PARENT'


def as_parent() -> dict[str, str]:
    """What a process finds in its environment so that `end_with_parent` ends it with this one."""
    return {_PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Has the kernel send this process SIGTERM, so that it saves, when the process that started it is killed.

    Asked for by the started process itself: between fork and exec, where it is commonly done, no Python may run once
    the parent has threads.
    """
    parent = os.environ.pop(_PARENT, '')
    if parent and sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # killed before that
            os.kill(os.getpid(), signal.SIGTERM)
