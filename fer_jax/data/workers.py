"""Work spread over processes, in order, with a bounded part of it under way."""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from fer_jax.errors import UserError


def usable_cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def in_order(function: Callable, jobs: Iterable[tuple], workers: int) -> Iterator[Any]:
    """Yields function(*job) of every job in their order, computed in `workers` processes, or in this one if it is 1.

    Of the jobs only the next few are taken, so that memory does not grow with their number. The processes are new
    ones, not forks (JAX has threads), do not import the caller's script, and end when this one ends in whatever way.

    Raises:
        UserError: if a process dies, as it does where memory runs out.
    """
    if workers == 1:
        for job in jobs:
            yield function(*job)
        return
    before = multiprocessing.active_children()
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context('spawn'), _end_with_parent)
    try:
        pending = collections.deque()
        for job in jobs:
            with _quiet_start():
                pending.append(executor.submit(function, *job))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BaseException as error:
        for process in multiprocessing.active_children():
            if process not in before:
                process.terminate()
        if isinstance(error, BrokenProcessPool):
            raise UserError(
                'a worker process died, perhaps for want of memory; the same command goes on from here, '
                'and needs less memory with --workers=1'
            ) from None
        raise
    finally:
        executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """What is started within does not import the caller's script, and Ctrl-C does not reach it."""
    main = sys.modules['__main__']
    sys.modules['__main__'] = types.ModuleType('__main__')
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        sys.modules['__main__'] = main


def _end_with_parent() -> None:
    """Processes of a pool wait for work for ever when their parent is killed."""

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
