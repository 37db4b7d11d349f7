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

from fer_jax.clusters import visible_gpus
from fer_jax.launcher import as_parent
from fer_jax.reports.tables import duration

_STOPPED = (128 + signal.SIGTERM, -signal.SIGTERM)  # with a checkpoint, or where there was nothing to save


@dataclasses.dataclass(frozen=True)
class Work:
    """One process.

    Attributes:
        name: how it is told of.
        command: module and flags, after `python -m`.
        log: where it writes; the file is added to.
        after: names of those that have to be done before it begins.
        done: called once it has ended well.
    """

    name: str
    command: Sequence[str]
    log: str
    after: Sequence[str] = ()
    done: Callable[[], None] = lambda: None


def run_at_once(
    works: Sequence[Work], slots: Sequence[Mapping[str, str]], say: Callable[[str], None]
) -> tuple[int, dict[str, str]]:
    """Runs all, as many at a time as there are slots, and those first that most others wait for.

    SIGTERM or SIGINT is passed on to all that run; no other is then begun. One that fails keeps none from being run but
    those that wait for it.

    Args:
        slots: what a process finds in its environment, for each that may run at a time.
        say: told what begins and ends.

    Returns:
        The signal that came, or 0, and why those that failed did, by name; one that waited for another has its name.
    """
    left = sorted(works, key=lambda work: -_waiting(work.name, works))  # stable: else in the order given
    free = list(slots)
    running: dict[subprocess.Popen, tuple[Work, Mapping[str, str], float]] = {}
    finished: set[str] = set()
    failed: dict[str, str] = {}
    first = time.monotonic()
    with _forwarded(running) as received:
        while running or left and not received:
            for work in [work for work in left if failed.keys() & set(work.after)]:
                left.remove(work)
                failed[work.name] = f'waited for {", ".join(name for name in work.after if name in failed)}'
            ready = (work for work in list(left) if finished.issuperset(work.after))
            while free and not received and (work := next(ready, None)):
                left.remove(work)
                slot = free.pop(0)
                process = _start(work, slot)
                running[process] = work, slot, time.monotonic()
                say(f'{work.name}: {work.log}')
                if received:  # while it was being started
                    process.terminate()
            for process in [process for process in running if process.poll() is not None]:
                work, slot, began = running.pop(process)
                free.append(slot)
                if not process.returncode:
                    work.done()
                    finished.add(work.name)
                    took = duration(time.monotonic() - began)
                    say(f'{work.name}: done in {took}; {_progress(finished, left, running, first)}')
                elif received and process.returncode in _STOPPED:
                    say(f'{work.name}: stopped')
                else:
                    failed[work.name] = f'ended with {process.returncode}, {_last_line(work.log)} ({work.log})'
                    say(f'{work.name}: failed')
            time.sleep(0.1)
    return (received[0] if received else 0), failed


def _progress(finished: Sized, left: Sized, running: Sized, first: float) -> str:
    so_far, still = time.monotonic() - first, len(left) + len(running)
    words = f'{len(finished)} of {len(finished) + still} after {duration(so_far)}'
    return words + f', about {duration(so_far * still / len(finished))} to go' * (still > 0)


def _waiting(name: str, works: Sequence[Work]) -> int:
    """How many wait for it, be it by way of others."""
    waiting = {work.name for work in works if name in work.after}
    while more := {work.name for work in works if waiting & set(work.after)} - waiting:
        waiting |= more
    return len(waiting)


def device_slots() -> list[dict[str, str]]:
    """What a process finds in its environment so that it sees one device, for each device of this host.

    JAX itself is not asked: it would take the GPUs' memory for this process.
    """
    gpus = 0 if os.environ.get('JAX_PLATFORMS') == 'cpu' else visible_gpus(os.environ)
    if gpus:
        listed = os.environ.get('CUDA_VISIBLE_DEVICES')
        names = [str(index) for index in range(gpus)] if listed is None else listed.split(',')
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
    """While entered, SIGTERM and SIGINT are noted in the list given, and every process gets SIGTERM."""
    received: list[int] = []

    def note(number, _frame):
        received.append(number)
        for process in list(running):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

    old = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _last_line(path: str) -> str:
    with open(path, errors='replace') as file:
        lines = [line.strip() for line in file if line.strip()]
    return lines[-1] if lines else 'without a word'
