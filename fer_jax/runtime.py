"""Process-wide settings that must stand before JAX starts its backend: each with its measured reason."""

from __future__ import annotations

import ctypes
import os
import sys

# XLA's CPU backend hands single convolutions to its YNN library, whose gradients are slow. Without that, the shallow
# network's training step ran at 765 images/s instead of 457 (best of three, 2 cores, batch 128, jax 0.10.2).
# FER_JAX_XLA_CPU_FLAGS= (empty) switches it off.
_CPU_FLAGS = '--xla_cpu_experimental_ynn_fusion_type=-individual_convolution'
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def configure() -> None:
    """Sets XLA's flags and the allocator's thresholds; called first by every command that computes."""
    flags = os.environ.get('FER_JAX_XLA_CPU_FLAGS', _CPU_FLAGS)
    present = os.environ.get('XLA_FLAGS', '')
    if flags and flags.split('=')[0] not in present:
        os.environ['XLA_FLAGS'] = f'{present} {flags}'.strip()
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    if sys.platform == 'linux':
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Tells glibc to keep large freed blocks: XLA's CPU backend frees and takes its temporaries at every step."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, 'mallopt'):
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
