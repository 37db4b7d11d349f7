"""Several pairs from one command, each a run of its own in WORKDIR/SOURCE_to_TARGET.

Either one after the other, each on all devices of the run, or as many at once as there are devices: then each is a
process of its own that sees one device. A pair that fails is named at the end and does not keep the others from being
trained. The same command goes on with what is left.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence

import jax
from ml_collections import ConfigDict

from fer_jax.at_once import Work, device_slots, run_at_once
from fer_jax.config import set_field
from fer_jax.errors import UserError

DEVICES = ('all', 'one')


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
    works = [
        Work(
            '_to_'.join(pair),
            [
                'fer_jax.train',
                *words,
                '--config.pairs=',
                f'--config.pair={",".join(pair)}',
                f'--workdir={pair_directory(workdir, pair)}',
            ],
            os.path.join(pair_directory(workdir, pair), 'log.txt'),
        )
        for pair in read_pairs(config)
    ]
    received, failed = run_at_once(works, device_slots(), lambda words: print(words, flush=True))
    if not received:
        _report(failed, workdir)
        return 0
    print('stopped; the checkpoint of every pair is written, the same command goes on from them', file=sys.stderr)
    return 128 + received


def _report(failed: Mapping[str, object], workdir: str) -> None:
    if failed:
        words = '; '.join(f'{name}: {why}' for name, why in failed.items())
        raise UserError(f'{len(failed)} of the pairs in {workdir} failed, the others are trained: {words}')
