"""Turns a step into a program: gathers batches on the device, runs several steps per dispatch, donates the state.

Shape letters: T steps of one dispatch, B images of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from fer_jax.data.feed import Resident, batch_indices
from fer_jax.training.mesh import Placement

Step = Callable[[Any, dict[str, jax.Array], jax.Array], tuple[Any, dict[str, jax.Array]]]


def make_advance(
    step: Step, resident: Resident, placement: Placement, seed: int, batch_size: int
) -> Callable[[Any, int, int], tuple[Any, dict[str, jax.Array]]]:
    """`advance(state, step, count)` for the loop.

    Args:
        step: a pure training step `(state, batch, key) -> (state, metrics)`.
        resident: the training split on the devices.
        placement: batches are cut over its data axis; the state is on every device.
        seed: of the order of the data and of every step's key; step N draws from `fold_in(key(seed), N)`.
        batch_size: over all devices.
    """
    key = jax.device_put(jax.random.key(seed), placement.replicated)

    def steps(state, resident, indices_TB):
        def body(state, indices_B):
            batch = resident.batch(indices_B)
            return step(state, batch, jax.random.fold_in(key, state.step))

        if len(indices_TB) == 1:  # a scan of one step is slower than the step on a CPU
            state, sums = body(state, indices_TB[0])
        else:
            state, metrics = jax.lax.scan(body, state, indices_TB)
            sums = jax.tree.map(lambda values: values.sum(0), metrics)
        return state, sums | {'bad_steps': state.bad_steps + 0}

    program = jax.jit(steps, donate_argnums=0, out_shardings=placement.replicated)

    def advance(state, step, count):
        indices_TB = batch_indices(seed, step, count, len(resident.labels_N), batch_size)
        return program(state, resident, jax.device_put(indices_TB, placement.split(1)))

    return advance


def steps_per_dispatch(wanted: int, platform: str) -> int:
    """The configured number, or what pays: one on a CPU, where a scan is slower; 32 where launches cost."""
    return wanted or (1 if platform == 'cpu' else 32)
