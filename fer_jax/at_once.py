"""Several processes side by side, of which some wait for others: each in its slot, with a log of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized

from fer_jax.cli import explain
from fer_jax.clusters import visible_gpus
from fer_jax.errors import UserError
from fer_jax.parents import as_parent
from fer_jax.reports.tables import duration

_STOPPED = (128 + signal.SIGTERM, -signal.SIGTERM)  # with a checkpoint, or where there was nothing to save


@dataclasses.dataclass(frozen=True)
class Work:
    """One process.

    Attributes:
        name: how it is told of; every work has its own.
        command: module and flags, after `python -m`.
        log: where it writes; the file is added to.
        after: names of those that have to be done before it begins.
        needless: asked when it could begin: whether it is done already.
        done: called once it has ended well; an OSError or UserError makes a failure of it.
    """

    name: str
    command: Sequence[str]
    log: str
    after: Sequence[str] = ()
    needless: Callable[[], bool] = lambda: False
    done: Callable[[], object] = lambda: None


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a work was not done, in words, and the code that its process ended with; that of what it waited for."""

    words: str
    code: int

    def __str__(self) -> str:
        return self.words


def run_at_once(
    works: Sequence[Work], slots: Sequence[Mapping[str, str]], say: Callable[[str], None]
) -> tuple[int, dict[str, Failure]]:
    """Runs all, as many at a time as there are slots, and those first that most others wait for.

    SIGTERM, SIGINT and SIGHUP are passed on as SIGTERM to all that run; no other is then begun. One that fails keeps
    none from being run but those that wait for it. No process outlives this function.

    Args:
        slots: what a process finds in its environment, for each that may run at a time.
        say: told what begins and ends.

    Returns:
        The signal that came, or 0; and the failures by name.

    Raises:
        ValueError: if works share a name, or wait for none of them or for each other.
    """
    _refuse_impossible(works)
    left = sorted(works, key=lambda work: -len(_waiting_for(work.name, works)))  # stable: else in the order given
    free = list(slots)
    running: dict[subprocess.Popen, tuple[Work, Mapping[str, str], float, int]] = {}
    finished: set[str] = set()
    failed: dict[str, Failure] = {}
    first = time.monotonic()

    def fail(work: Work, why: str, code: int) -> None:
        failed[work.name] = Failure(why, code)
        say(f'{work.name}: failed, {why}')

    def begin(work: Work) -> None:
        left.remove(work)
        try:
            if work.needless():
                finished.add(work.name)
                return
            offset = os.path.getsize(work.log) if os.path.exists(work.log) else 0
            process = _start(work, free[0])
        except (OSError, UserError) as error:
            fail(work, _in_words(error), 1)
            return
        running[process] = work, free.pop(0), time.monotonic(), offset
        say(f'{work.name}: {work.log}')
        if received:  # while it was being started
            process.terminate()

    def end(process: subprocess.Popen) -> None:
        work, slot, began, offset = running.pop(process)
        free.append(slot)
        if process.returncode:
            if received and process.returncode in _STOPPED:
                say(f'{work.name}: stopped')
            else:
                why = f'ended with {process.returncode}, {_last_line(work.log, offset)} ({work.log})'
                fail(work, why, process.returncode)
            return
        try:
            work.done()
        except (OSError, UserError) as error:
            fail(work, _in_words(error), 1)
            return
        finished.add(work.name)
        took = duration(time.monotonic() - began)
        say(f'{work.name}: done in {took}; {_progress(finished, left, running, first)}')

    with _forwarded(running) as received:
        while running or left and not received:
            for work in [work for work in left if failed.keys() & set(work.after)]:
                left.remove(work)
                fatal = next(name for name in work.after if name in failed)
                failed[work.name] = Failure(f'waited for {fatal}', failed[fatal].code)
            for work in [work for work in left if finished.issuperset(work.after)]:
                if free and not received:
                    begin(work)
            for process in [process for process in running if process.poll() is not None]:
                end(process)
            time.sleep(0.1)
    return (received[0] if received else 0), failed


def _in_words(error: Exception) -> str:
    explained = explain(error)
    return explained[1].removeprefix('error: ') if explained else str(error)


def _refuse_impossible(works: Sequence[Work]) -> None:
    names = [work.name for work in works]
    if len(set(names)) < len(names):
        raise ValueError(f'works share a name: {sorted(name for name in set(names) if names.count(name) > 1)}')
    for work in works:
        if set(work.after) - set(names):
            raise ValueError(f'{work.name} waits for {sorted(set(work.after) - set(names))}, which are no works')
        if work.name in _waiting_for(work.name, works):
            raise ValueError(f'{work.name} waits for itself, by way of others')


def _progress(finished: Sized, left: Sized, running: Sized, first: float) -> str:
    so_far, still = time.monotonic() - first, len(left) + len(running)
    words = f'{len(finished)} of {len(finished) + still} after {duration(so_far)}'
    return words + f', about {duration(so_far * still / len(finished))} to go' * (still > 0)


def _waiting_for(name: str, works: Sequence[Work]) -> set[str]:
    """The names of those that wait for it, be it by way of others."""
    waiting = {work.name for work in works if name in work.after}
    while more := {work.name for work in works if waiting & set(work.after)} - waiting:
        waiting |= more
    return waiting


def device_slots() -> list[dict[str, str]]:
    """What a process finds in its environment so that it sees one device, for each device of this host.

    JAX itself is not asked: it would take the GPUs' memory for this process.
    """
    gpus = 0 if os.environ.get('JAX_PLATFORMS') == 'cpu' else visible_gpus(os.environ)
    if gpus:
        listed = os.environ.get('CUDA_VISIBLE_DEVICES')
        names = [str(index) for index in range(gpus)] if listed is None else listed.split(',')
        names = [name for name in names if name.strip() not in ('', '-1')]
        # The others of these GPUs are for the other processes.
        return [{'CUDA_VISIBLE_DEVICES': name, 'FER_JAX_ALLOW_IDLE': '1'} for name in names]
    flags = os.environ.get('XLA_FLAGS', '')
    simulated = re.search(r'--xla_force_host_platform_device_count=(\d+)', flags)
    alone = {'XLA_FLAGS': flags.replace(simulated.group(), '').strip()} if simulated else {}
    return [alone] * (int(simulated.group(1)) if simulated else 1)


def _start(work: Work, slot: Mapping[str, str]) -> subprocess.Popen:
    os.makedirs(os.path.dirname(work.log) or '.', exist_ok=True)
    with open(work.log, 'a') as log:
        return subprocess.Popen(
            [sys.executable, '-m', *work.command],
            env=os.environ | slot | as_parent(),
            stdout=log,
            stderr=log,
            start_new_session=True,  # so that Ctrl-C in a terminal comes once, from here
        )


@contextlib.contextmanager
def _forwarded(running: Mapping[subprocess.Popen, object]) -> Iterator[list[int]]:
    """While entered, signals to end are noted in the list given and passed on; what runs at its end is ended."""
    received: list[int] = []

    def note(number, _frame):
        received.append(number)
        for process in list(running):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

    old = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield received
    finally:
        for process in running:  # an error has come
            process.terminate()
        for process in running:
            process.wait()
        for number, handler in old.items():
            signal.signal(number, handler)


def _last_line(path: str, offset: int) -> str:
    """What was written last, from there on."""
    with open(path, errors='replace') as file:
        file.seek(offset)
        lines = [line.strip() for line in file if line.strip()]
    return lines[-1] if lines else 'without a word'
