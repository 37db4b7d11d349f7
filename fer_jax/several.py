"""Several pairs from one command, each a run of its own in WORKDIR/SOURCE_to_TARGET.

Either one after the other, each on all devices of the run, or as many at once as there are devices: then each is a
process of its own that sees one device. A pair that fails is named at the end and does not keep the others from being
trained. The same command goes on with what is left.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
from ml_collections import ConfigDict

from fer_jax.clusters import visible_gpus
from fer_jax.config import set_field
from fer_jax.errors import UserError
from fer_jax.launcher import as_parent

DEVICES = ('all', 'one')
_STOPPED = 128 + signal.SIGTERM


def read_pairs(config: ConfigDict) -> list[tuple[str, str]]:
    """The pairs that `config.pairs` names.

    Raises:
        UserError: if an entry is not SOURCE=TARGET, or names a pair (in either direction) that is there already.
    """
    pairs: list[tuple[str, str]] = []
    for entry in config.pairs:
        source, target = (part.strip() for part in entry.partition('=')[::2])
        if not source or not target:
            raise UserError(f'config.pairs has {entry!r}; SOURCE=TARGET is wanted, such as anger=happiness')
        if {source, target} in map(set, pairs):
            raise UserError(f'config.pairs names {source} and {target} twice; a pair serves both directions')
        pairs.append((source, target))
    if config.cyclegan.devices not in DEVICES:
        raise UserError(f'config.cyclegan.devices is {config.cyclegan.devices!r}; it can be {", ".join(DEVICES)}')
    return pairs


def pair_directory(workdir: str, pair: tuple[str, str]) -> str:
    """Where a pair's run lies."""
    return os.path.join(workdir, f'{pair[0]}_to_{pair[1]}')


def pair_config(config: ConfigDict, pair: tuple[str, str]) -> ConfigDict:
    """The configuration of one pair's run, as if it had been trained alone."""
    config = ConfigDict(config.to_dict())
    set_field(config, 'pairs', ())
    set_field(config, 'pair', pair)
    return config.lock()


def train_in_turn(config: ConfigDict, workdir: str, train: Callable[[ConfigDict, str], None]) -> None:
    """Trains each pair on all devices, one after the other.

    Args:
        train: trains one configuration into one workdir.

    Raises:
        UserError: once all have been tried, if one of them failed; among several processes, at once.
    """
    failed = {}
    for pair in read_pairs(config):
        try:
            train(pair_config(config, pair), pair_directory(workdir, pair))
        except UserError as error:
            if jax.process_count() > 1:
                raise  # one process must not begin the next pair while others wait for it in this one
            failed['_to_'.join(pair)] = str(error)
    _report(failed, workdir)


def train_at_once(config: ConfigDict, workdir: str, words: Sequence[str]) -> int:
    """Trains as many pairs at once as there are devices, each in a process that sees one of them.

    SIGTERM or SIGINT is passed on to all, which write their checkpoints; no other pair is then begun.

    Args:
        words: of the command line, `--config=FILE` and the changes that it makes, without `--workdir`.

    Returns:
        The code to end with: 0, or 128 and the number of the signal.

    Raises:
        UserError: once all have ended, if one of them failed.
    """
    pairs, devices = read_pairs(config), _devices()
    running: dict[subprocess.Popen, tuple[str, Mapping[str, str]]] = {}
    failed = {}
    with _forwarded(running) as received:
        while running or pairs and not received:
            while pairs and devices and not received:
                pair, device = pairs.pop(0), devices.pop(0)
                process = _start(words, pair, pair_directory(workdir, pair), device)
                running[process] = ('_to_'.join(pair), device)
                if received:  # while it was being started
                    process.terminate()
            for process in [process for process in running if process.poll() is not None]:
                name, device = running.pop(process)
                devices.append(device)
                if process.returncode and not (received and process.returncode == _STOPPED):
                    log = os.path.join(workdir, name, 'log.txt')
                    failed[name] = f'ended with {process.returncode}, {_last_line(log)} ({log})'
                print(f'{name}: {"trained" if not process.returncode else "stopped"}', flush=True)
            time.sleep(0.1)
    _report(failed, workdir)
    if not received:
        return 0
    print('stopped; the checkpoint of every pair is written, the same command goes on from them', file=sys.stderr)
    return 128 + received[0]


def _start(words: Sequence[str], pair: tuple[str, str], directory: str, device: Mapping[str, str]) -> subprocess.Popen:
    os.makedirs(directory, exist_ok=True)
    command = [sys.executable, '-m', 'fer_jax.train', *words, '--config.pairs=', f'--config.pair={",".join(pair)}']
    command.append(f'--workdir={directory}')
    print(f'{"_to_".join(pair)}: {directory}/log.txt', flush=True)
    with open(os.path.join(directory, 'log.txt'), 'a') as log:
        return subprocess.Popen(
            command,
            env=os.environ | device | as_parent(),
            stdout=log,
            stderr=log,
            start_new_session=True,  # so that Ctrl-C in a terminal comes once, from here
        )


def _devices() -> list[Mapping[str, str]]:
    """What a process finds in its environment so that it sees one device, for each device of this host.

    JAX itself is not asked: it would take the GPUs' memory for this process.
    """
    gpus = 0 if os.environ.get('JAX_PLATFORMS') == 'cpu' else visible_gpus(os.environ)
    if gpus:
        listed = os.environ.get('CUDA_VISIBLE_DEVICES')
        names = [str(index) for index in range(gpus)] if listed is None else listed.split(',')
        # The others of these GPUs are for the other pairs.
        return [{'CUDA_VISIBLE_DEVICES': name, 'FER_JAX_ALLOW_IDLE': '1'} for name in names]
    flags = os.environ.get('XLA_FLAGS', '')
    simulated = re.search(r'--xla_force_host_platform_device_count=(\d+)', flags)
    alone = {'XLA_FLAGS': flags.replace(simulated.group(), '').strip()} if simulated else {}
    return [alone] * (int(simulated.group(1)) if simulated else 1)


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


def _report(failed: Mapping[str, str], workdir: str) -> None:
    if failed:
        words = '; '.join(f'{name}: {why}' for name, why in failed.items())
        raise UserError(f'{len(failed)} of the pairs in {workdir} failed, the others are trained: {words}')
