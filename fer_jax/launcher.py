"""What launch/train.sh starts: one training process or several on this host, started again when a run can go on.

    python -m fer_jax.launcher [--nproc=N] FLAGS OF fer_jax.train

Codes of the training: 0 done, 1 the machine failed, 2 bad input, 130 interrupted; 143 stopped by SIGTERM with its
checkpoint saved, 75 a peer was lost, 128 + N killed by signal N. After the last three the same command starts again, up
to FER_JAX_RESTARTS times (3), unless this launcher got the signal itself: then whoever sent it knows what comes next.
Only the standard library is used: this process outlives many of those it starts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from fer_jax import cli
from fer_jax.clusters import HEARTBEAT, find_membership, visible_gpus
from fer_jax.errors import UserError
from fer_jax.parents import as_parent

_FINAL = (1, 2, 130)  # codes after which starting again changes nothing
_GRACE = 20  # seconds that processes have to end by themselves once one has ended badly
_SAVING = 600  # the same, once one has ended after saving: the others may still be at it


def main(argv: Sequence[str] | None = None) -> int:
    """Starts the training until it is done or nothing is to be gained by starting again; returns its code."""
    words = list(sys.argv[1:] if argv is None else argv)
    num, words = _take_nproc(words)
    restarts = _number(os.environ.get('FER_JAX_RESTARTS') or '3', 'FER_JAX_RESTARTS', 0)
    with _Signals() as signals:
        for attempt in range(restarts + 1):
            code, words_of_it = _Processes(words, num, attempt).wait(signals)
            if code == 0 or code in _FINAL or signals.received:
                return code
            if attempt == restarts:
                break
            _say(f'{words_of_it}; restart {attempt + 1} of {restarts}')
            signals.sleep(_pause(num, words))
            if signals.received:
                return code
    _say(f'{words_of_it}; not started again after {restarts} restarts (FER_JAX_RESTARTS)')
    return code


def _take_nproc(words: list[str]) -> tuple[int, list[str]]:
    """The number of processes, and the words without it."""
    num, rest, given = 1, [], iter(words)
    for word in given:
        name, _, value = word.partition('=')
        if name == '--nproc':
            num = _number(value or next(given, ''), '--nproc', 1)
        else:
            rest.append(word)
    if num > 1 and any(word.startswith('--coordinator') for word in rest):
        raise UserError('--nproc starts all processes of a run; with --coordinator start each with its own --id')
    return num, rest


def _number(text: str, name: str, least: int) -> int:
    if not text.isdigit() or int(text) < least:
        raise UserError(f'{name} is {text!r}; a whole number from {least} on is wanted')
    return int(text)


def _pause(num: int, words: list[str]) -> float:
    """Seconds until the next start: other hosts must have noticed the loss, lest a new process join the old run."""
    elsewhere = any(word.startswith('--coordinator') for word in words) or find_membership(os.environ) is not None
    name, default = HEARTBEAT
    return 2 + int(os.environ.get(name) or default) if elsewhere and num == 1 else 1


class _Signals:
    """While entered, SIGTERM and SIGINT are noted and passed on."""

    def __enter__(self):
        self.received = 0
        self.processes: list[subprocess.Popen] = []
        self._heard = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)

    def sleep(self, seconds: float) -> None:
        """Until the time is over or a signal comes."""
        self._heard.wait(seconds)

    def _note(self, number, _frame):
        self.received = number
        self._heard.set()
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(self.received)


class _Processes:
    """The processes of one attempt."""

    def __init__(self, words: list[str], num: int, attempt: int):
        self.all: list[subprocess.Popen] = []
        self._readers: list[threading.Thread] = []
        command = [sys.executable, '-m', 'fer_jax.train', *words]
        for index, variables in enumerate(_environments(num, attempt)):
            apart = index > 0
            process = subprocess.Popen(
                command,
                env=variables,
                stdout=subprocess.DEVNULL if apart else None,
                stderr=subprocess.PIPE if apart else None,
                start_new_session=True,  # so that Ctrl-C in a terminal comes once, from here
            )
            self.all.append(process)
            if apart:
                reader = threading.Thread(target=_pass_on, args=(process.stderr, index), daemon=True)
                reader.start()
                self._readers.append(reader)

    def wait(self, signals: _Signals) -> tuple[int, str]:
        """Until all have ended; when one ends badly, the others are ended too.

        Returns:
            The code of the run, and in words how it ended.
        """
        signals.processes = self.all
        if signals.received:
            signals._note(signals.received, None)
        deadline = None
        while any(process.poll() is None for process in self.all):
            ended = [process.returncode for process in self.all if process.returncode]
            if ended and deadline is None:
                saved = all(code in (143, -signal.SIGTERM) for code in ended)
                deadline = time.monotonic() + (_SAVING if saved else _GRACE)
            if deadline is not None and time.monotonic() > deadline:
                for process in self.all:
                    process.kill()
            time.sleep(0.05)
        signals.processes = []
        for reader in self._readers:
            reader.join(5)
        return _verdict([process.returncode for process in self.all])


def _verdict(codes: list[int]) -> tuple[int, str]:
    """The code that tells why a run ended, of those of its processes, and in words."""
    order = lambda code: (code in _FINAL, code < 0, code == 143, code != 0)
    index = max(range(len(codes)), key=lambda index: order(codes[index]))
    code = codes[index]
    who = 'the training' if len(codes) == 1 else f'process {index}'
    if code < 0:
        return 128 - code, f'{who} was killed by {signal.Signals(-code).name}'
    return code, {75: f'{who} lost a peer', 143: f'{who} was stopped by SIGTERM'}.get(code, f'{who} ended with {code}')


def _environments(num: int, attempt: int) -> Iterator[dict[str, str]]:
    """What each process finds in its environment: where the others are, and its share of the GPUs."""
    common = os.environ | {'FER_JAX_RESTART': str(attempt)} | as_parent()
    common.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')  # else jax's C++ tells a lost peer in 30 lines
    if num == 1:
        yield common
        return
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{found.getsockname()[1]}'
    shares = _gpu_shares(num)
    for index in range(num):
        yield (
            common
            | shares[index]
            | {
                'FER_JAX_COORDINATOR': address,
                'FER_JAX_NUM': str(num),
                'FER_JAX_ID': str(index),
                'FER_JAX_NPROC': str(num),
                'JAX_COORDINATOR_BIND_ADDRESS': address,  # nobody else needs it
            }
        )


def _gpu_shares(num: int) -> list[dict[str, str]]:
    count = visible_gpus(os.environ)
    if not count or os.environ.get('JAX_PLATFORMS') == 'cpu':
        return [{}] * num
    if count % num:
        raise UserError(f'--nproc={num} does not divide the {count} GPUs of this host; take a divisor of {count}')
    listed = os.environ.get('CUDA_VISIBLE_DEVICES')
    names = [str(index) for index in range(count)] if listed is None else listed.split(',')
    share = count // num
    return [{'CUDA_VISIBLE_DEVICES': ','.join(names[first : first + share])} for first in range(0, count, share)]


def _pass_on(stream, index: int) -> None:
    """Prints what another process than the first says on stderr, line by line, with its number."""
    for line in iter(stream.readline, b''):
        text = line.decode(errors='replace').rstrip()
        if text and '\r' not in text:  # a progress bar
            print(f'[{index}] {text}', file=sys.stderr, flush=True)


def _say(line: str) -> None:
    print(f'fer_jax.launcher: {line}', file=sys.stderr, flush=True)


if __name__ == '__main__':
    cli.run(main)
