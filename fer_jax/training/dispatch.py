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
    # As numbers: jax.device_put places no key on devices of other processes.
    key_data = np.asarray(jax.random.key_data(jax.random.key(seed)))

    def one(state, batches, index, key_data):
        batch = jax.tree.map(lambda array: array[index], batches)
        return step(state, batch, jax.random.fold_in(jax.random.wrap_key_data(key_data), state.step))

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

    program = jax.jit(steps, donate_argnums=0, out_shardings=placement.replicated)
    under_way = collections.deque(maxlen=_UNDER_WAY)

    def advance(state, step, count):
        if len(under_way) == _UNDER_WAY:
            jax.block_until_ready(under_way[0])
        batches = feed.batches(step, count, lambda: all(worst.is_ready() for worst in under_way))
        state, sums = program(state, batches, count, key_data)
        under_way.append(sums['worst'])
        return state, sums

    return advance


def steps_per_dispatch(wanted: int, platform: str, batch_bytes: int = 0) -> int:
    """The configured number, or what pays: one on a CPU, where a loop is slower; up to 32 where launches cost.

    Args:
        batch_bytes: of a batch's images; fewer steps are dispatched together where they would take over 256 MiB.
    """
    return wanted or (1 if platform == 'cpu' else max(1, min(32, _STACK_BYTES // max(batch_bytes, 1))))
