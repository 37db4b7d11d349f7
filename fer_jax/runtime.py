"""Process-wide settings that must stand before JAX starts its backend: each with its reason and its switch."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import sys
from pathlib import Path

import jax

from fer_jax.clusters import visible_gpus

# XLA's CPU backend hands single convolutions to its YNN library, whose gradients are slow. Without that, the shallow
# network's training step ran at 765 images/s instead of 457 (best of three, 2 cores, batch 128, jax 0.10.2).
# Nor its sums: with them a residual network in bfloat16 gives NaN under jax 0.11.2 (jitted, maps not returned), and
# without them steps cost the same. FER_JAX_XLA_CPU_FLAGS= (empty) switches it off.
_CPU_FLAGS = '--xla_cpu_experimental_ynn_fusion_type=-individual_convolution,-reduce'
# Starts the gradients' all-reduce while the layers below still compute theirs, where XLA else keeps the program's
# order. It is the one XLA flag that NVIDIA sets in its own JAX images (docs.nvidia.com/jax-toolbox). With one GPU there
# is nothing to hide. FER_JAX_XLA_GPU_FLAGS= (empty) switches it off.
_GPU_FLAGS = '--xla_gpu_enable_latency_hiding_scheduler=true'
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_NEVER = -1  # as the largest size_t; 2**31 - 1 is less than a step of ResNet18 takes for 128 images
_THREADS_HEAP = 2**26  # that glibc maps at once for a thread other than the first, and at most


def configure(several: bool = False) -> None:
    """Settings for XLA, the allocator and a CPU's threads; called first by every command that computes.

    Args:
        several: whether other processes take part.
    """
    _add_flags(os.environ.get('FER_JAX_XLA_CPU_FLAGS', _CPU_FLAGS))
    gpus = visible_gpus(os.environ)
    if gpus > 1 or gpus and several:
        _add_flags(os.environ.get('FER_JAX_XLA_GPU_FLAGS', _GPU_FLAGS))
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    if sys.platform == 'linux':
        _keep_freed_memory()
    if not several:
        if (not gpus or os.environ.get('JAX_PLATFORMS') == 'cpu') and os.environ.get('FER_JAX_CPU_ASYNC') != '1':
            _compute_in_calling_thread()
        _keep_compiled()


def _add_flags(flags: str) -> None:
    """Adds flags for XLA, but for those that the user has set."""
    present = os.environ.get('XLA_FLAGS', '')
    added = [flag for flag in flags.split() if flag.split('=')[0] not in present]
    os.environ['XLA_FLAGS'] = ' '.join([*present.split(), *added])


def _keep_compiled() -> None:
    """Has JAX keep what it compiles, so that a repeated or restarted run begins at once.

    All of it: what takes less than JAX's limit of a second each takes five seconds together before a first step.

    FER_JAX_COMPILATION_CACHE names the directory and, when empty, switches it off; JAX_COMPILATION_CACHE_DIR is left as
    it is. Not for several processes: only the first one writes, and GPUs that tune a program together wait for ever for
    one that has read it.
    """
    wanted = os.environ.get('FER_JAX_COMPILATION_CACHE')
    if wanted == '' or jax.config.jax_compilation_cache_dir:
        return
    # XLA's programs for a CPU are for that very model: elsewhere they may meet an instruction that is not there.
    directory = Path(wanted) if wanted else _cache_home() / 'fer_jax' / 'compiled'
    directory = directory / _machine()
    with contextlib.suppress(OSError, RuntimeError):  # no home, or none to write in: it is a convenience
        directory.mkdir(parents=True, exist_ok=True)
        _write_whole()
        jax.config.update('jax_compilation_cache_dir', str(directory))
        if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
            jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)


def _write_whole() -> None:
    """Has JAX's cache write a program aside and rename it: what a kill or a full disk cuts short is never read.

    JAX writes in place and does not replace what is there, so that a program that was cut short would be warned of,
    and compiled anew, at every start.
    """
    with contextlib.suppress(ImportError, AttributeError):
        from jax._src.lru_cache import _CACHE_SUFFIX, LRUCache

        def put(self, key: str, value: bytes) -> None:
            path = os.path.join(self.path, key + _CACHE_SUFFIX)
            if self.eviction_enabled or os.path.exists(path):
                return write_in_place(self, key, value)
            aside = f'{path}.{os.getpid()}.partial'
            with contextlib.suppress(OSError):  # no room: JAX would warn of each of sixty programs
                try:
                    with open(aside, 'wb') as file:
                        file.write(value)
                    os.replace(aside, path)
                finally:
                    with contextlib.suppress(OSError):
                        os.remove(aside)

        write_in_place = LRUCache.put
        if write_in_place.__module__ != __name__:  # once
            LRUCache.put = put


def _cache_home() -> Path:
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')


def _machine() -> str:
    """A name for the processor: its kind, and a hash of what it can do."""
    told = platform.processor()
    with contextlib.suppress(OSError), open('/proc/cpuinfo') as file:
        told = ''.join(
            sorted({line for line in file if line.startswith(('model name', 'flags', 'Features', 'CPU part'))})
        )
    return f'{platform.machine()}-{hashlib.sha256(told.encode()).hexdigest()[:8]}'


def _keep_freed_memory() -> None:
    """Tells glibc to keep large freed blocks: XLA's CPU backend frees and takes its temporaries at every step.

    A heap of another thread than the first is given back when it is empty, unless less than the padding would be left:
    a step of the shallow network, of members in threads, had 8,300 page faults (a sixth of the processor's time).
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, 'mallopt'):
        libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
        libc.mallopt(_M_TOP_PAD, _THREADS_HEAP)
        if not libc.mallopt(_M_MMAP_THRESHOLD, _NEVER):
            libc.mallopt(_M_MMAP_THRESHOLD, 2**25)  # the most that older releases take


def _compute_in_calling_thread() -> None:
    """Has JAX run programs for one CPU device in the thread that calls them, which is mostly the first.

    Only the first thread's heap grows without limit. Those of another hold 64 MiB each, and what is larger is mapped
    and touched anew at each use (ResNet10: 69,000 page faults a step). One heap for all was worse: oneDNN takes and
    frees memory in every product, and all threads waited for each other while glibc searched what a compilation had
    left (shallow network: 145 ms a step instead of 125). FER_JAX_CPU_ASYNC=1 leaves it to JAX's own threads, as it is
    among several processes, where this was not measured.
    """
    with contextlib.suppress(AttributeError):  # an option that a release may not have
        jax.config.update('jax_cpu_enable_async_dispatch', False)
