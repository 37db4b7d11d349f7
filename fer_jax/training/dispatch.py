"""Turns a step into a program that runs several per dispatch and donates the state, and feeds it.

The program takes its batches from outside, so that it is the same whatever feeds it.
Shape letters: T steps of one dispatch, B images of a batch.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.data.feed import Feed
from fer_jax.training.mesh import Placement

Step = Callable[[Any, dict[str, jax.Array], jax.Array], tuple[Any, dict[str, jax.Array]]]
Program = Callable[..., tuple[Any, dict[str, jax.Array]]]

_UNDER_WAY = 3  # dispatches: enough to hide the host's work, few enough for their batches to fit on the device
_STACK_BYTES = 2**28  # of the images of one dispatch


def make_advance(
    step: Step, feed: Feed, placement: Placement, seed: int, dispatch: int = 1
) -> Callable[[Any, int, int], tuple[Any, dict[str, jax.Array]]]:
    """`advance(state, step, count)` for the loop, with `count` up to `dispatch`: one program for any count.

    Args:
        step: a pure training step `(state, batch, key) -> (state, metrics)`.
        feed: gives the batches of `dispatch` steps, cut over the placement's data axis; the state is on every device.
        seed: of every step's key; step N draws from `fold_in(key(seed), N)`.
        dispatch: steps per program at most.
    """
    program = jax.jit(make_steps(step, dispatch), donate_argnums=0, out_shardings=placement.replicated)
    key_data, pace = key_numbers(seed), Pace(feed)

    def advance(state, step, count):
        state, sums = program(state, pace.batches(step, count), count, key_data)
        pace.note(sums['worst'])
        return state, sums

    return advance


def key_numbers(seed: int) -> np.ndarray:
    """A key as numbers: jax.device_put places no key on devices of other processes."""
    return np.asarray(jax.random.key_data(jax.random.key(seed)))


def at_index(step: Step) -> Program:
    """The step as a function of `(state, batches, index, key_data)`: with that one of T batches, and its own key."""

    def one(state, batches, index, key_data):
        batch = jax.tree.map(lambda array: array[index], batches)
        return step(state, batch, jax.random.fold_in(jax.random.wrap_key_data(key_data), state.step))

    return one


def make_steps(step: Step, dispatch: int, members: bool = False) -> Program:
    """A function `(state, batches, count, key_data) -> (state, sums)` of so many steps, up to `dispatch`.

    Args:
        members: states and key_data have a leading axis of members, all of which see the same batches.
    """
    one = at_index(step)
    one = jax.vmap(one, (0, None, None, 0)) if members else one

    def several(state, batches, count, key_data):
        def body(index, carry):
            state, sums = carry
            state, metrics = one(state, batches, index, key_data)
            return state, jax.tree.map(jnp.add, sums, metrics)

        shapes = jax.eval_shape(one, state, batches, 0, key_data)[1]
        zeros = jax.tree.map(lambda metric: jnp.zeros(metric.shape, metric.dtype), shapes)
        return jax.lax.fori_loop(0, count, body, (state, zeros))

    def steps(state, batches, count, key_data):
        # A loop of one step is slower than the step on a CPU.
        if dispatch == 1:
            state, sums = one(state, batches, 0, key_data)
        else:
            state, sums = several(state, batches, count, key_data)
        return state, sums | {'worst': state.worst + 0}

    return steps


class Pace:
    """Keeps the host a few dispatches ahead of the device, and asks the feed for their batches.

    One CPU device runs a dispatch while it is given: there the host is never ahead.
    """

    def __init__(self, feed: Feed):
        self._feed = feed
        self._under_way: collections.deque[jax.Array] = collections.deque(maxlen=_UNDER_WAY)

    def batches(self, step: int, count: int) -> dict[str, jax.Array]:
        """The feed's, once there is room for another dispatch."""
        if len(self._under_way) == _UNDER_WAY:
            jax.block_until_ready(self._under_way[0])
        return self._feed.batches(step, count, lambda: all(done.is_ready() for done in self._under_way))

    def note(self, done: jax.Array) -> None:
        """Something that is ready when the dispatch is done, and lives on."""
        self._under_way.append(done)


def steps_per_dispatch(wanted: int, platform: str, batch_bytes: int = 0) -> int:
    """The configured number, or what pays: one on a CPU, where a loop is slower; up to 32 where launches cost.

    Args:
        batch_bytes: of a batch's images; fewer steps are dispatched together where they would take over 256 MiB.
    """
    return wanted or (1 if platform == 'cpu' else max(1, min(32, _STACK_BYTES // max(batch_bytes, 1))))
