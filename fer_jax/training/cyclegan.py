"""The training step of a CycleGAN pair (Zhu et al. 2017): a pure function `(state, batch, key) -> (state, metrics)`.

Domain a is the first emotion of the pair, b the second. Two generators, `a_to_b` and `b_to_a`, and two discriminators,
`a` and `b`, take one step of one optimiser together: the discriminators' gradients are those at the parameters that
judged the generators, as in the authors' code, where the generators' step comes first and leaves the others alone.

Shape letters: B images of a batch per domain, H and W pixels, C channels, P images of a pool.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from fer_jax.models.initial import init_variables
from fer_jax.training.state import TaskState, no_steps

_DIRECTIONS = {'a_to_b': ('a', 'b'), 'b_to_a': ('b', 'a')}
_BACK = {'a_to_b': 'b_to_a', 'b_to_a': 'a_to_b'}


@flax.struct.dataclass
class Pool:
    """Images that a generator made in earlier steps, for a discriminator to see again (Shrivastava et al. 2017).

    Attributes:
        images: float32 [P, H, W, C].
        filled: int32, how many of them there are yet.
    """

    images: Float[Array, 'P H W C']
    filled: Int[Array, '']

    def exchange(
        self, images: Float[Array, 'B H W C'], swaps: Bool[Array, ' B'], places: Int[Array, ' B']
    ) -> tuple[Pool, Float[Array, 'B H W C']]:
        """Puts images in and takes others out, one after the other, as in the authors' code.

        While there is room, an image is put in and returned. Then, where `swaps` says so, it goes to its place and
        the image that was there is returned; otherwise it is returned itself and not put in.

        Only numbers are followed one after the other, so that images move at once: an image put in by this batch may
        be taken out by it.
        """
        size, count = len(self.images), len(images)
        order = jnp.arange(count)
        free = self.filled + order < size
        places = jnp.where(free, self.filled + order, places)
        written = free | swaps
        # Sources count the pool's images first, then the batch's. [B, B]: whether the second came before to that place.
        before = (order[None] < order[:, None]) & written[None] & (places[None] == places[:, None])
        latest = jnp.max(jnp.where(before, order[None], -1), 1)
        there = jnp.where(latest < 0, places, size + latest)
        taken = jnp.where(written & ~free, there, size + order)
        last = jnp.full(size, -1).at[places].max(jnp.where(written, order, -1))
        kept = jnp.where(last < 0, jnp.arange(size), size + last)
        everything = jnp.concatenate([self.images, images])
        return Pool(everything[kept], jnp.minimum(self.filled + count, size)), everything[taken]


def draw_exchanges(key: Key[Array, ''], count: int, size: int) -> tuple[Bool[Array, ' B'], Int[Array, ' B']]:
    """For `count` images, whether each is exchanged (a fair coin) and with which of a pool's `size`."""
    coin_key, place_key = jax.random.split(key)
    return jax.random.bernoulli(coin_key, shape=(count,)), jax.random.randint(place_key, (count,), 0, size)


@flax.struct.dataclass
class State(TaskState):
    """What a training step changes; counts and average are those of `TaskState`.

    Attributes:
        generators: parameters of `a_to_b` and `b_to_a`.
        discriminators: parameters of `a` and `b`.
        optimizer: the optimiser's state over both.
        pools: past images made for `a` and `b`, or None.
    """

    trained = 'generators'

    step: Array
    generators: dict[str, Any]
    discriminators: dict[str, Any]
    optimizer: Any
    average: Any
    pools: dict[str, Pool] | None
    bad_steps: Array
    worst: Array


@dataclasses.dataclass(frozen=True)
class Task:
    """What stays the same over a run.

    Attributes:
        generator, discriminator: networks, each used for both directions or domains with parameters of its own.
        optimizer: optax transformation over the parameters of all four; the paper's is Adam, 2e-4, beta 1 of .5.
        size, channels: of the images.
        cycle: weight of the distance between an image and its translation back.
        identity: weight, in parts of `cycle`, of the distance between an image and its translation to its own domain; 0
            leaves these passes out.
        flip: mirror each image left-right with probability one half.
        pool: images per pool; 0 shows the discriminators the newest only.
        ema: decay of the generators' average; 0 = none.
    """

    generator: nn.Module
    discriminator: nn.Module
    optimizer: optax.GradientTransformation
    size: int
    channels: int
    cycle: float = 10.0
    identity: float = 0.5
    flip: bool = True
    pool: int = 50
    ema: float = 0.0


@functools.partial(jax.jit, static_argnums=0)
def init_state(task: Task, key: Key[Array, '']) -> State:
    """Fresh parameters, optimiser state and empty pools."""
    shape = (task.size, task.size, task.channels)
    keys = jax.random.split(key, 4)
    init = lambda network, key: init_variables(network, shape, key)['params']
    generators = {'a_to_b': init(task.generator, keys[0]), 'b_to_a': init(task.generator, keys[1])}
    discriminators = {'a': init(task.discriminator, keys[2]), 'b': init(task.discriminator, keys[3])}
    # A pool for each: the step's program takes the state's arrays over, and one array cannot be taken twice.
    pool = lambda: Pool(jnp.zeros((task.pool, *shape)), jnp.zeros((), jnp.int32))
    return State(
        generators=generators,
        discriminators=discriminators,
        optimizer=task.optimizer.init((generators, discriminators)),
        average=jax.tree.map(jnp.copy, generators) if task.ema else None,
        pools={'a': pool(), 'b': pool()} if task.pool else None,
        **no_steps(),
    )


def to_range(images: UInt8[Array, '*shape']) -> Float[Array, '*shape']:
    """Stored pixels, 0 to 255, as the networks see them: -1 to 1, float32."""
    return images.astype(jnp.float32) / 127.5 - 1.0


def to_pixels(images: Float[Array, '*shape']) -> UInt8[Array, '*shape']:
    """The inverse of `to_range`, rounded."""
    return jnp.round((jnp.clip(images, -1.0, 1.0) + 1.0) * 127.5).astype(jnp.uint8)


def translate(
    generator: nn.Module, generators: dict[str, Any], images: UInt8[Array, 'B H W C'], direction: str = 'a_to_b'
) -> UInt8[Array, 'B H W C']:
    """Stored images of one domain, translated to the other.

    Args:
        generators: what `State.split` gives first.
        direction: `a_to_b` or `b_to_a`.
    """
    return to_pixels(generator.apply({'params': generators[direction]}, to_range(images)))


def train_step(
    task: Task, state: State, batch: dict[str, Array], key: Key[Array, '']
) -> tuple[State, dict[str, Array]]:
    """One update of both generators and both discriminators.

    Passes that can share a batch do: a generator's translations and its identities; a discriminator's real images and
    those of the pool. So there are four passes through generators instead of six.

    Args:
        task: static.
        state: before the step.
        batch: `images_a` and `images_b`, uint8 [B, H, W, C].
        key: the step's own.

    Returns:
        The state after it, and means over the batch: `loss`, the sum of all that is minimised; its parts
        `adversarial_a_to_b`, `cycle_a`, `identity_a`, `discriminator_a` and so for the other, cycle and identity as
        distances before their weights; and `judged_rightly`, the share of patches that the discriminators have on the
        right side of 1/2.
    """
    flip_key, pool_key = jax.random.split(key)
    real = {}
    for domain, domain_key in zip('ab', jax.random.split(flip_key), strict=True):
        images = to_range(batch[f'images_{domain}'])
        real[domain] = _flip(domain_key, images) if task.flip else images

    def generator_loss(generators):
        return _generator_loss(task, generators, state.discriminators, real)

    (loss, (parts, made)), generator_gradients = jax.value_and_grad(generator_loss, has_aux=True)(state.generators)
    pools, shown = (None, made) if state.pools is None else _exchange(pool_key, state.pools, made)

    def discriminator_loss(discriminators):
        return _discriminator_loss(task, discriminators, real, shown)

    (more, (more_parts, right)), discriminator_gradients = jax.value_and_grad(discriminator_loss, has_aux=True)(
        state.discriminators
    )
    loss += more
    metrics = {'loss': loss, **parts, **more_parts, 'judged_rightly': right}
    return _update(task, state, (generator_gradients, discriminator_gradients), pools, loss), metrics


def _flip(key, images_BHWC):
    mirrored = jax.random.bernoulli(key, shape=(len(images_BHWC), 1, 1, 1))
    return jnp.where(mirrored, images_BHWC[:, :, ::-1], images_BHWC)


def _exchange(key, pools: dict[str, Pool], made) -> tuple[dict[str, Pool], dict[str, Array]]:
    after, shown = {}, {}
    for domain, domain_key in zip('ab', jax.random.split(key), strict=True):
        draws = draw_exchanges(domain_key, len(made[domain]), len(pools[domain].images))
        after[domain], shown[domain] = pools[domain].exchange(made[domain], *draws)
    return after, shown


def _generator_loss(task: Task, generators, discriminators, real) -> tuple[Array, tuple[dict, dict]]:
    """The loss, its parts, and the images made for each domain."""
    generate, judge = _traced_once(task.generator), _traced_once(task.discriminator)
    apply = lambda direction, images: generate(generators[direction], images)
    parts, made, loss = {}, {}, 0.0
    for direction, (source, target) in _DIRECTIONS.items():
        if not task.identity:
            made[target] = apply(direction, real[source])
            continue
        both = apply(direction, jnp.concatenate([real[source], real[target]]))
        made[target], same = jnp.split(both, [len(real[source])])
        parts[f'identity_{target}'] = _distance(same, real[target])
        loss += task.cycle * task.identity * parts[f'identity_{target}']
    for direction, (source, target) in _DIRECTIONS.items():
        scores = judge(discriminators[target], made[target])
        parts[f'adversarial_{direction}'] = jnp.mean(jnp.square(scores - 1))
        parts[f'cycle_{source}'] = _distance(apply(_BACK[direction], made[target]), real[source])
        loss += parts[f'adversarial_{direction}'] + task.cycle * parts[f'cycle_{source}']
    return loss, (parts, jax.lax.stop_gradient(made))


def _traced_once(network: nn.Module):
    """The network as a function of parameters and images, whose two passes of one shape are one part of the program.

    A function of its own for each trace, since a network is traced otherwise where its operations are counted.
    """
    return jax.jit(lambda params, images: network.apply({'params': params}, images))


def _distance(first, second):
    return jnp.mean(jnp.abs(first - second))


def _discriminator_loss(task: Task, discriminators, real, shown) -> tuple[Array, tuple[dict, Array]]:
    """The loss, its parts, and the share of patches judged rightly."""
    judge = _traced_once(task.discriminator)
    parts, right = {}, []
    for domain in 'ab':
        images = jnp.concatenate([real[domain], shown[domain]])
        scores = judge(discriminators[domain], images)
        of_real, of_made = jnp.split(scores, [len(real[domain])])
        loss = (jnp.mean(jnp.square(of_real - 1)) + jnp.mean(jnp.square(of_made))) / 2
        parts[f'discriminator_{domain}'] = loss
        right += [jnp.mean(of_real > 0.5), jnp.mean(of_made < 0.5)]
    return sum(parts.values()), (parts, sum(right) / len(right))


def _update(task: Task, state: State, gradients, pools, loss) -> State:
    params = (state.generators, state.discriminators)
    changes, optimizer = task.optimizer.update(gradients, state.optimizer, params)
    generators, discriminators = optax.apply_updates(params, changes)
    changed = {'generators': generators, 'discriminators': discriminators, 'optimizer': optimizer, 'pools': pools}
    return state.advance(loss, gradients, task.ema, **changed)
