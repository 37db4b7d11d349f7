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
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from fer_jax.errors import UserError

DIED = object()  # in the place of a result


def usable_cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def in_order(
    function: Callable,
    jobs: Iterable[tuple],
    workers: int,
    rescue: Callable[..., Any] | None = None,
    apart: bool = False,
) -> Iterator[Any]:
    """Yields function(*job) of every job in their order, computed in `workers` processes, or in this one if it is 1.

    Of the jobs only the next few are taken, so that memory does not grow with their number. The processes are new
    ones, not forks (JAX has threads), do not import the caller's script, and end when this one ends in whatever way.

    Args:
        rescue: takes what a job is, where its process died, and died again when it had the machine to itself; what it
            gives takes the place of the result.
        apart: one process is not this one either.

    Raises:
        UserError: if a process dies, as it does where memory runs out, and there is no rescue.
    """
    if workers == 1 and not apart:
        for job in jobs:
            yield function(*job)
        return
    jobs = iter(jobs)
    while True:
        with _processes(workers) as executor:
            pending: collections.deque[list] = collections.deque()  # of job and future
            try:
                for job in jobs:
                    pending.append([job, None])
                    pending[-1][1] = _submit(executor, function, job)
                    if len(pending) > 2 * workers:
                        yield _first_result(pending)
                while pending:
                    yield _first_result(pending)
                return
            except BrokenProcessPool:
                if rescue is None:
                    raise _died() from None
        for job, _ in pending:
            (result,) = each_alone(function, [job])
            yield rescue(*job) if result is DIED else result


def each_alone(function: Callable, jobs: Iterable[tuple]) -> Iterator[Any]:
    """Yields function(*job) of one job after another, computed in a process of their own; DIED where that died."""
    jobs = iter(jobs)
    while True:
        with _processes(1) as executor:
            try:
                for job in jobs:
                    yield _submit(executor, function, job).result()
                return
            except BrokenProcessPool:
                pass
        yield DIED


def _first_result(pending: collections.deque[list]) -> Any:
    result = pending[0][1].result()
    pending.popleft()  # only now: what is lost with its process is done again
    return result


@contextlib.contextmanager
def _processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    before = multiprocessing.active_children()
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context('spawn'), _end_with_parent)
    try:
        yield executor
    except BaseException:
        for process in multiprocessing.active_children():
            if process not in before:
                process.terminate()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _submit(executor: ProcessPoolExecutor, function: Callable, job: tuple) -> Future:
    with _quiet_start():
        return executor.submit(function, *job)


def _died() -> UserError:
    return UserError(
        'a worker process died, perhaps for want of memory; the same command goes on from here, '
        'and needs less memory with --workers=1'
    )


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
