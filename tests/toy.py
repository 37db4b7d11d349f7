"""A linear map learned by momentum over all devices of all processes: the loop's real work in a second."""

import hashlib
import os
import time

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.loop import Hooks, LoopOptions, run_loop
from fer_jax.training.mesh import make_placement
from fer_jax.training.stopping import Signals

BATCH = 16


@flax.struct.dataclass
class Linear:
    weights: jax.Array
    moment: jax.Array
    lowered: jax.Array

    def split(self):
        return {'weights': self.weights}, {'moment': self.moment, 'lowered': self.lowered}

    def join(self, model, rest):
        return self.replace(**model, **rest)


def place(state, placement):
    """The moment is cut over the devices, all else on each."""
    shardings = Linear(placement.replicated, placement.split(0), placement.replicated)
    put = lambda array, sharding: jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
    return jax.tree.map(put, state, shardings), shardings


def fresh(side=32):
    weights = np.random.default_rng(0).normal(size=(side, 8)).astype(np.float32)
    return Linear(weights, np.zeros_like(weights), np.zeros((), np.float32))


def step(state, number, batch_sharding):
    keys = jax.random.split(jax.random.fold_in(jax.random.key(3), number))
    inputs = jax.random.normal(keys[0], (BATCH, state.weights.shape[0]))
    inputs = jax.lax.with_sharding_constraint(inputs, batch_sharding)
    loss, gradient = jax.value_and_grad(lambda weights: jnp.mean(jnp.square(jnp.tanh(inputs @ weights) - 0.5)))(
        state.weights
    )
    moment = 0.9 * state.moment + gradient
    sums = {'loss': loss, 'accuracy': jnp.mean(inputs[:, 0] > 0), 'worst': jnp.zeros(2, jnp.int32)}
    return state.replace(weights=state.weights - 0.1 * moment, moment=moment), sums


def train(
    workdir,
    total=40,
    pause=0.0,
    side=32,
    early_stopping=0,
    log_every=4,
    every=7,
    evaluate_every=10,
    keep=3,
    strike=(None, 0),
    linger=0.0,
):
    """Runs the loop; `early_stopping` is for accuracies that never rise in process 0, and always in others.

    `strike` is a step and a signal, which the last process sends itself at that step; `linger` the seconds by which it
    leaves later than others once all have agreed.
    """
    os.makedirs(workdir, exist_ok=True)
    placement = make_placement(BATCH)
    state, shardings = place(fresh(side), placement)
    program = jax.jit(step, static_argnums=2, donate_argnums=0, out_shardings=(shardings, placement.replicated))
    accuracies, restored = [0.5], []

    def advance(state, number, count):
        if not restored:
            restored.append(digest(state))
            print(f'\ngoes on from {restored[0]}', flush=True)  # the bar has begun the line
        time.sleep(pause)
        if number == strike[0] and jax.process_index() == jax.process_count() - 1:
            os.kill(os.getpid(), strike[1])
        assert count == 1
        return program(state, number, placement.split(0))

    def evaluate(state):
        accuracies.append(accuracies[-1] + 0.01 * jax.process_index())
        return {'validation/accuracy': accuracies[-1], 'validation/loss': 1 / 3 + jax.process_index()}

    lower = jax.jit(lambda lowered, loss: lowered + loss, out_shardings=placement.replicated)
    after = lambda state, metrics: state.replace(lowered=lower(state.lowered, metrics['validation/loss']))
    options = LoopOptions(
        total, BATCH, 5.0, log_every, evaluate_every, checkpoint_every=every, early_stopping=early_stopping
    )
    hooks = Hooks(advance, evaluate, after, lambda state, number: 0.1)
    if linger and jax.process_index() == jax.process_count() - 1:
        agree = Signals.at_the_end
        Signals.at_the_end = lambda self: (agree(self), time.sleep(linger))[0]
    return run_loop(options, state, hooks, Checkpoints(workdir, keep), workdir)


def digest(state):
    """Of its arrays, whole where this process sees all of them."""
    leaves = jax.tree.leaves(state)
    if all(leaf.is_fully_addressable for leaf in leaves):
        return digest_of(leaves)
    return digest_of(shard.data for leaf in leaves for shard in leaf.addressable_shards)


def digest_of(arrays):
    """Of arrays in any order, equal ones once."""
    parts = {np.asarray(array).tobytes() for array in arrays}
    return hashlib.sha256(b''.join(sorted(parts))).hexdigest()
