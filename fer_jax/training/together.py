"""Members that are trained together: one feed, one compiled step, and the way in which its runs share the devices.

The members' states stay apart between dispatches, so that checkpoints, evaluation and learning rates are those of
single runs. Shape letters: M members.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from fer_jax.data.feed import Feed
from fer_jax.errors import UserError
from fer_jax.training.dispatch import Pace, Step, at_index, key_numbers, make_steps
from fer_jax.training.mesh import Placement

WAYS = ('auto', 'vmap', 'threads', 'turn')

Advance = Callable[[list[Any], int, int, Sequence[bool]], tuple[list[Any], list[Any]]]


def choose_way(wanted: str, platform: str, devices: int) -> str:
    """How members are trained together: the way that is wanted, or for `auto` the one that pays.

    `vmap` runs the step once for all of them, as batched operations: for accelerators, which one small network leaves
    idle. On a CPU a batch of convolutions with different kernels is slow; there `threads` has as many members'
    steps under way as there are cores, each of them cut over all cores, so that none waits for the slowest part of one
    step (docs/performance.md). `turn` has one step after the other.

    Args:
        devices: of the run, over all its processes.

    Raises:
        UserError: for an unknown way, or one that cannot be.
    """
    if wanted not in WAYS:
        raise UserError(f'config.ensemble.how is {wanted!r}; it can be {", ".join(WAYS)}')
    if wanted == 'threads' and (platform != 'cpu' or devices > 1):
        raise UserError(
            f'config.ensemble.how=threads is for one process on a CPU, and this run has {devices} {platform} '
            'device(s); leave it at auto'
        )
    if wanted != 'auto':
        return wanted
    if platform != 'cpu':
        return 'vmap'
    return 'threads' if devices == 1 else 'turn'


def steps_on_threads(members: int, cores: int) -> int:
    """Steps of a dispatch in the way `threads` that leave no core idle at its end, all being equally long."""
    cores = min(members, cores)
    return cores // math.gcd(members, cores)


@contextlib.contextmanager
def advancing(way: str, step: Step, feed: Feed, placement: Placement, seeds: Sequence[int], dispatch: int, cores: int):
    """While entered, `(advance, spread)` for the loop.

    `advance` is what `run_members` wants; `spread(function, states)` calls a function of several states, which gives a
    list, for all of them, in the way that the steps go.

    Args:
        step, feed, placement, dispatch: as of `make_advance`.
        seeds: of the members, by which each draws as if it were alone.
    """
    if way != 'threads':
        make = _batched if way == 'vmap' else _in_turn
        yield make(step, feed, placement, seeds, dispatch), lambda function, states: function(states)
        return
    with ThreadPoolExecutor(min(cores, len(seeds))) as pool:
        spread = lambda function, states: [one for (one,) in pool.map(lambda state: function([state]), states)]
        yield _on_threads(step, feed, placement, seeds, pool), spread


def _in_turn(step: Step, feed: Feed, placement: Placement, seeds: Sequence[int], dispatch: int) -> Advance:
    """The program of a single run, member by member; the devices never wait between them."""
    program = jax.jit(make_steps(step, dispatch), donate_argnums=0, out_shardings=placement.replicated)
    keys, pace = [key_numbers(seed) for seed in seeds], Pace(feed)

    def advance(states, step, count, trained):
        batches = pace.batches(step, count)
        states, sums = list(states), [None] * len(states)
        for index in np.flatnonzero(trained):
            states[index], sums[index] = program(states[index], batches, count, keys[index])
        pace.note(sums[np.flatnonzero(trained)[-1]]['worst'])
        return states, sums

    return advance


def _on_threads(
    step: Step, feed: Feed, placement: Placement, seeds: Sequence[int], pool: ThreadPoolExecutor
) -> Advance:
    """Each step of each member in one of the pool's threads, in the order of the steps."""
    one = at_index(step)

    def noting(state, batches, index, key_data):
        state, metrics = one(state, batches, index, key_data)
        return state, (metrics, state.worst + 0)

    program = jax.jit(noting, donate_argnums=0, out_shardings=placement.replicated)
    keys, compiled = [key_numbers(seed) for seed in seeds], []

    def advance(states, step, count, trained):
        batches = feed.batches(step, count)
        states, found = list(states), [[] for _ in states]

        def run(member: int, index: int, before: Future | None) -> None:
            if before is not None:
                before.result()
            states[member], told = program(states[member], batches, np.int32(index), keys[member])
            found[member].append(jax.block_until_ready(told))

        last: dict[int, Future] = {}
        for index in range(count):
            for member in np.flatnonzero(trained):
                last[member] = pool.submit(run, member, index, last.get(member))
                if not compiled:  # once, and not by every thread
                    last[member].result()
                    compiled.append(True)
        for done in last.values():
            done.result()
        return states, [_summed(told) if told else None for told in found]

    return advance


def _summed(told: Sequence[tuple[dict[str, jax.Array], jax.Array]]) -> dict[str, Any]:
    metrics = jax.device_get([metrics for metrics, _ in told])
    return {name: sum(of_step[name] for of_step in metrics) for name in metrics[0]} | {'worst': told[-1][1]}


def _batched(step: Step, feed: Feed, placement: Placement, seeds: Sequence[int], dispatch: int) -> Advance:
    """One step for all: `vmap` over the members, which lie on different devices where the placement says so."""
    steps = make_steps(step, dispatch, members=True)
    if placement.members > 1:
        # No member knows of the others, so nothing is sent between their devices within a step.
        cut, whole = PartitionSpec('members'), PartitionSpec()
        steps = jax.shard_map(
            steps,
            mesh=placement.mesh,
            in_specs=(cut, whole, whole, cut),
            out_specs=(cut, cut),
            axis_names={'members'},
            check_vma=False,
        )

    def together(states, batches, count, keys, trained_M):
        states_M = jax.tree.map(lambda *arrays: jnp.stack(arrays), *states)
        new_M, sums_M = steps(states_M, batches, count, keys)
        kept = lambda new, old: jnp.where(trained_M.reshape(-1, *[1] * (new.ndim - 1)), new, old)
        new_M = jax.tree.map(kept, new_M, states_M)
        apart = lambda tree: [jax.tree.map(lambda array: array[index], tree) for index in range(len(states))]  # noqa: B023
        return apart(new_M), apart(sums_M)

    program = jax.jit(together, donate_argnums=0, out_shardings=placement.replicated)
    keys, pace = np.stack([key_numbers(seed) for seed in seeds]), Pace(feed)

    def advance(states, step, count, trained):
        states, sums = program(list(states), pace.batches(step, count), count, keys, np.asarray(trained))
        pace.note(sums[0]['worst'])
        return states, sums

    return advance
