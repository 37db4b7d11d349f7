"""Turns a step into a program: gathers batches on the device, runs several steps per dispatch, donates the state.

Shape letters: T steps of one dispatch, B images of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.data.feed import Resident, batch_indices
from fer_jax.training.mesh import Placement

Step = Callable[[Any, dict[str, jax.Array], jax.Array], tuple[Any, dict[str, jax.Array]]]


def make_advance(
    step: Step, resident: Resident, placement: Placement, seed: int, batch_size: int, dispatch: int = 1
) -> Callable[[Any, int, int], tuple[Any, dict[str, jax.Array]]]:
    """`advance(state, step, count)` for the loop, with `count` up to `dispatch`: one program for any count.

    Args:
        step: a pure training step `(state, batch, key) -> (state, metrics)`.
        resident: the training split on the devices.
        placement: batches are cut over its data axis; the state is on every device.
        seed: of the order of the data and of every step's key; step N draws from `fold_in(key(seed), N)`.
        batch_size: over all devices.
        dispatch: steps per program at most.
    """
    key = jax.device_put(jax.random.key(seed), placement.replicated)

    def one(state, resident, indices_B):
        return step(state, resident.batch(indices_B), jax.random.fold_in(key, state.step))

    def several(state, resident, indices_TB, count):
        def body(index, carry):
            state, sums = carry
            state, metrics = one(state, resident, indices_TB[index])
            return state, jax.tree.map(jnp.add, sums, metrics)

        shapes = jax.eval_shape(one, state, resident, indices_TB[0])[1]
        zeros = jax.tree.map(lambda metric: jnp.zeros(metric.shape, metric.dtype), shapes)
        return jax.lax.fori_loop(0, count, body, (state, zeros))

    def steps(state, resident, indices_TB, count):
        # A loop of one step is slower than the step on a CPU.
        if dispatch == 1:
            state, sums = one(state, resident, indices_TB[0])
        else:
            state, sums = several(state, resident, indices_TB, count)
        return state, sums | {'worst': state.worst + 0}

    program = jax.jit(steps, donate_argnums=0, out_shardings=placement.replicated)

    def advance(state, step, count):
        indices_TB = np.zeros((dispatch, batch_size), np.int32)
        indices_TB[:count] = batch_indices(seed, step, count, len(resident.labels_N), batch_size)
        return program(state, resident, jax.device_put(indices_TB, placement.split(1)), count)

    return advance


def steps_per_dispatch(wanted: int, platform: str) -> int:
    """The configured number, or what pays: one on a CPU, where a loop is slower; 32 where launches cost."""
    return wanted or (1 if platform == 'cpu' else 32)
