"""What a benchmark runs on: the line that says it, and the rate at which matrices are multiplied there."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gc
import os
import platform
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from pairs import spent

from fer_jax import runtime


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that benchmarks of steps have in common."""
    parser.add_argument('--pairs', type=int, default=5, help='how often all run')
    parser.add_argument('--seconds', type=float, default=4.0, help='of steps per turn, about')
    parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'), help='of the computation')
    parser.add_argument('--compile', action='store_true', help='torch.compile too')


def begin(flags: argparse.Namespace) -> tuple[str, float, list[str]]:
    """Starts both and prints what they run on; PyTorch's device, the matrix rate, and PyTorch's ways."""
    device, rate = start(), matrix_rate(flags.dtype)
    more = f'{flags.dtype}, medians of {flags.pairs} turns; matrices at {rate / 1e9:,.0f} GFLOP/s'
    print(f'{headline(more)}\n')
    return device, rate, ['eager', 'channels last', *(['compiled'] if flags.compile else [])]


def start() -> str:
    """Makes settings for both, before anything starts JAX's backend; the device for PyTorch, 'cuda' or 'cpu' as JAX's.

    On a GPU both multiply float32 in TF32, which is JAX's way and an option of PyTorch, and choose among cuDNN's
    algorithms by trying them.
    """
    # Of a GPU's memory; else JAX takes three quarters of it, and PyTorch runs in the rest.
    os.environ.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', '.45')
    sys.stdout.reconfigure(line_buffering=True)  # a row is seen when it is measured
    runtime.configure()
    torch._dynamo.config.recompile_limit = 64  # else what has more shapes or members than 8 runs eagerly
    if jax.default_backend() != 'gpu':
        return 'cpu'
    if not torch.cuda.is_available():
        raise SystemExit(
            'JAX runs on a GPU here and PyTorch cannot; install PyTorch for CUDA, or set JAX_PLATFORMS=cpu'
        )
    torch.set_float32_matmul_precision('high')
    torch.backends.cudnn.benchmark = True
    return 'cuda'


def headline(more: str) -> str:
    """Date, processor, load, devices and versions, then `more`."""
    device = jax.devices()[0]
    kind = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration), open('/proc/cpuinfo') as file:
        kind = next(line.split(':')[1].strip() for line in file if line.startswith('model name'))
    cuda = f' (CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()})' if device.platform == 'gpu' else ''
    return (
        f'{datetime.date.today()}, {kind}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at the '
        f'start; Python {platform.python_version()}, jax {jax.__version__} on {device.platform} '
        f'({device.device_kind}), PyTorch {torch.__version__}{cuda}; {more}'
    )


def matrix_rate(dtype: str) -> float:
    """The best of a few products of two random square matrices, by either, in operations per second."""
    gpu = jax.default_backend() == 'gpu'
    side, count = (8192, 30) if gpu else (2048 if dtype == 'float32' else 1024, 3)
    values = np.random.default_rng(0).standard_normal((side, side), np.float32)
    matrix, product = jnp.asarray(values, dtype), jax.jit(jnp.matmul)
    other = torch.tensor(values, dtype=getattr(torch, dtype), device='cuda' if gpu else 'cpu')

    def ours(count):
        for _ in range(count):
            made = product(matrix, matrix)
        made.block_until_ready()

    def theirs(count):
        for _ in range(count):
            other @ other
        wait()

    def best(run):
        run(1)
        once = spent(run, 1)
        return once if once > 1 else min(once, *(spent(run, count) / count for _ in range(4)))

    return 2 * side**3 / min(best(ours), best(theirs))


def most_memory(status: str) -> float:
    """The most that a process ever had at a time, in MiB, by its /proc/PID/status."""
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith('VmHWM')) / 1024


def wait() -> None:
    """Until PyTorch's GPU, where there is one, has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def attempt(label: str, do: Callable[[], None]) -> None:
    """Does it; an error, such as memory that is not there, is one line of the table, and what follows goes on.

    How long it took goes to stderr.
    """
    began = time.perf_counter()
    try:
        do()
    except Exception as error:
        words = (str(error).splitlines() or [''])[0][:300]
        print(f'| {label}: {type(error).__name__}: {words} |')
    print(f'{label}: {time.perf_counter() - began:.0f} s', file=sys.stderr, flush=True)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
