import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fer_jax.models.cyclegan import Discriminator, Generator
from fer_jax.training import cyclegan
from fer_jax.training.cyclegan import Pool, Task, init_state, to_pixels, to_range, train_step
from fer_jax.training.mesh import make_placement
from fer_jax.training.optimizer import OptimizerOptions, ScheduleOptions, make_optimizer, make_schedule

torch = pytest.importorskip('torch', reason='the reference implementation')
from benchmarks.torch_translators import Pair, draw_state  # noqa: E402 (it imports PyTorch)

SIDE, CHANNELS, WIDTH, WIDTHS = 16, 3, 3, (4, 5)
TASK = Task(
    Generator(CHANNELS, blocks=1, width=WIDTH),
    Discriminator(WIDTHS),
    optax.sgd(0.02),
    SIDE,
    CHANNELS,
    flip=False,
    pool=3,
)


def draw_batch(seed, size=2):
    random = np.random.default_rng(seed)
    shape = (size, SIDE, SIDE, CHANNELS)
    return {f'images_{domain}': random.integers(0, 256, shape).astype(np.uint8) for domain in 'ab'}


def doubled(batch):
    """A batch as the reference takes it."""
    scaled = {domain: torch.tensor(batch[f'images_{domain}']).double() / 127.5 - 1 for domain in 'ab'}
    return {domain: images.permute(0, 3, 1, 2) for domain, images in scaled.items()}


def compiled(task):
    """The step as a program; LLVM's optimisation takes most of the time that compiling one does."""
    return jax.jit(functools.partial(train_step, task), compiler_options={'xla_backend_optimization_level': 0})


def flatten(state, name):
    leaves = jax.tree_util.tree_leaves_with_path(getattr(state, name))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def test_steps_equal_pytorchs(monkeypatch):
    """Losses of three steps and parameters after each, so the gradients of all four networks, past fakes included."""
    state = draw_state(TASK)
    draws = [([True, False], [0, 0]), ([False, True], [2, 1]), ([True, True], [1, 1])]
    fixed = jnp.array([swaps for swaps, _ in draws]), jnp.array([places for _, places in draws])
    # The coins are those of the step, which the test passes in place of the key.
    monkeypatch.setattr(cyclegan, 'draw_exchanges', lambda key, *_: tuple(values[key] for values in fixed))
    monkeypatch.setattr(jax.random, 'split', lambda key, *_: (key, key))
    step = compiled(TASK)
    reference = Pair(TASK, state, functools.partial(torch.optim.SGD, lr=0.02), torch.nn.Module.double)
    for index, draw in enumerate(draws):
        # From where the reference stands: else the rounding of one step would grow in the next.
        before = draw_like(reference, state)
        state, metrics = step(before, draw_batch(index), jnp.asarray(index))
        expected = reference.step(doubled(draw_batch(index)), *draw)
        assert metrics.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(metrics[name], value.item(), rtol=1e-4, err_msg=f'{name} of step {index}')
        theirs = draw_like(reference, state)
        for name in ('generators', 'discriminators'):
            old, new, wanted = flatten(before, name), flatten(state, name), flatten(theirs, name)
            scale = max(np.abs(new[path] - old[path]).max() for path in new)
            assert scale > 1e-3
            for path in new:
                np.testing.assert_allclose(new[path], wanted[path], atol=1e-4 * scale + 1e-7, err_msg=f'{name}{path}')
    for domain in 'ab':
        ours = np.asarray(state.pools[domain].images).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(ours, torch.stack(reference.pools[domain]).numpy(), atol=1e-4)


def test_what_is_left_out_is_not_computed():
    task = dataclasses.replace(TASK, identity=0.0, pool=0)
    state = jax.eval_shape(functools.partial(init_state, task), jax.random.key(0))
    after, metrics = jax.eval_shape(functools.partial(train_step, task), state, draw_batch(0), jax.random.key(0))
    assert state.pools is after.pools is None
    assert not [name for name in metrics if name.startswith('identity')]
    passes = [0, 0]
    for place, identity in enumerate((0.0, 0.5)):
        task = dataclasses.replace(TASK, identity=identity)
        state = draw_state(task)
        loss = lambda state, task=task: train_step(task, state, draw_batch(0), jax.random.key(0))[1]['loss']
        passes[place] = jax.make_jaxpr(loss)(state).pretty_print(use_color=False).count('tanh')
    assert passes[0] == passes[1] > 0  # the identities share the translations' passes


def draw_like(reference, state):
    """The reference's parameters as a state."""

    def read(network, params):
        layers = [layer for layer in network.modules() if hasattr(layer, 'weight') and layer.weight is not None]
        order = [name for name in sorted(params) if not name.startswith('Conv')]
        convs = sorted(name for name in params if name.startswith('Conv'))
        blocks = [(name, inner) for name in order if name.startswith('Res') for inner in sorted(params[name])]
        if blocks:
            names = [*convs[:3], *blocks, *[name for name in order if name.startswith('Up')], *convs[3:]]
        else:
            names = convs
        found = {}
        for layer, name in zip(layers, names, strict=True):
            transposed = isinstance(layer, torch.nn.ConvTranspose2d)
            kernel = layer.weight.detach().numpy().transpose((2, 3, 0, 1) if transposed else (2, 3, 1, 0))
            # Copies, as the next step changes PyTorch's parameters in place.
            leaf = {'kernel': np.float32(kernel), 'bias': np.float32(layer.bias.detach().numpy())}
            if isinstance(name, tuple):
                found.setdefault(name[0], {})[name[1]] = leaf
            else:
                found[name] = leaf
        return found

    return state.replace(
        generators={name: read(net, state.generators[name]) for name, net in reference.generators.items()},
        discriminators={name: read(net, state.discriminators[name]) for name, net in reference.critics.items()},
    )


@pytest.mark.parametrize(('size', 'count'), [(1, 1), (3, 2), (4, 9)])
def test_the_pool_exchanges_one_after_the_other(size, count):
    random = np.random.default_rng(size)
    pool, stored, taken_back = Pool(jnp.zeros((size, 1, 1, 1)), jnp.zeros((), jnp.int32)), [], 0
    exchange = jax.jit(Pool.exchange)
    for step in range(8):
        images = np.arange(count, dtype=np.float32) + 100 * (step + 1)
        swaps, places = random.random(count) < 0.5, random.integers(0, size, count)
        expected = []
        for image, swap, place in zip(images, swaps, places, strict=True):
            if len(stored) < size:
                stored.append(image)
                expected.append(image)
            elif swap:
                expected.append(stored[place])
                stored[place] = image
            else:
                expected.append(image)
        pool, returned = exchange(pool, images[:, None, None, None], jnp.asarray(swaps), jnp.asarray(places))
        assert returned.ravel().tolist() == expected
        assert pool.images.ravel().tolist() == stored + [0.0] * (size - len(stored))
        assert int(pool.filled) == len(stored)
        taken_back += (np.array(expected) != images).sum()
    assert taken_back > 3


def test_coins_are_fair_and_places_cover_the_pool():
    swaps, places = cyclegan.draw_exchanges(jax.random.key(0), 4000, 50)
    assert abs(float(swaps.mean()) - 0.5) < 0.03
    assert set(places.tolist()) == set(range(50))


def adam(rate, total_steps):
    options = OptimizerOptions(name='adam', learning_rate=rate, b1=0.5)
    return make_optimizer(options, make_schedule(ScheduleOptions(name='linear'), rate, total_steps, 1.0))


@pytest.fixture(scope='module')
def trained():
    """Two steps with flips, average and Adam on its schedule."""
    task = dataclasses.replace(TASK, optimizer=adam(2e-4, 10), flip=True, identity=0.0, ema=0.99)
    step = compiled(task)
    states = [draw_state(task)]
    for index in range(2):
        states.append(step(states[-1], draw_batch(index), jax.random.key(index))[0])
    return task, step, states


def test_a_fresh_state_has_networks_of_its_own_and_empty_pools():
    small = {'generator': Generator(CHANNELS, blocks=0, width=4), 'discriminator': Discriminator((4,))}
    task = dataclasses.replace(TASK, **small, ema=0.9, pool=7)
    state = jax.jit(functools.partial(init_state, task))(jax.random.key(3, impl='unsafe_rbg'))  # compiles sooner
    assert state.pools['a'].images.shape == (7, SIDE, SIDE, CHANNELS)
    assert int(state.pools['b'].filled) == int(state.step) == 0
    assert same(state.average, state.generators)
    for networks_of in (state.generators, state.discriminators):
        one, other = (np.asarray(params['Conv_1']['kernel']) for params in networks_of.values())
        assert (one != other).all()
        assert abs(one.std() - 0.02) < 0.01  # the paper's


def same(one, other):
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), one, other)))


def test_a_step_is_a_function_of_state_batch_and_key(trained):
    _, step, states = trained
    again = step(states[1], draw_batch(1), jax.random.key(1))
    assert same(again[0], states[2])
    other = step(states[1], draw_batch(1), jax.random.key(2))
    assert not same(other[0].generators, states[2].generators)  # other images were mirrored
    assert int(states[2].step) == 2


def test_adam_moves_by_the_rate_at_first(trained):
    _, _, states = trained
    moves = jax.tree.map(lambda new, old: float(jnp.abs(new - old).max()), states[1].generators, states[0].generators)
    assert max(jax.tree.leaves(moves)) == pytest.approx(2e-4, rel=1e-2)
    moments = states[2].optimizer[0][0]
    assert moments.count == 2
    gradient = jax.tree.leaves(states[1].optimizer[0][0].mu)[-1] / 0.5  # the first moment is half the first gradient
    np.testing.assert_allclose(jax.tree.leaves(states[1].optimizer[0][0].nu)[-1], 0.001 * gradient**2, rtol=1e-4)


def test_the_average_follows_the_generators(trained):
    _, _, states = trained
    decay = (1 + 1) / (10 + 1)  # less than .99 in the second step
    moved = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, states[1].average, states[2].generators)
    for found, expected in zip(jax.tree.leaves(states[2].average), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_splitting_and_joining_a_state_loses_nothing(trained):
    task, _, states = trained
    model, rest = states[2].split()
    assert same(model, states[2].average)
    assert {'generators', 'discriminators', 'optimizer', 'pools', 'step'} <= rest.keys()
    assert same(states[0].join(model, rest), states[2])
    plain = draw_state(dataclasses.replace(task, ema=0.0, pool=0))
    model, rest = plain.split()
    assert same(model, plain.generators)
    assert not {'generators', 'average', 'pools'} & rest.keys()
    assert same(plain.join(model, rest), plain)


def test_a_step_that_is_not_finite_changes_nothing_but_the_count(trained):
    task, step, states = trained
    nan = jax.tree.map(lambda leaf: leaf * jnp.nan, states[2].discriminators['a'])
    broken = states[2].replace(discriminators={**states[2].discriminators, 'a': nan})
    after, metrics = step(broken, draw_batch(2), jax.random.key(2))
    assert not np.isfinite(metrics['loss'])
    for name in ('generators', 'average', 'pools', 'optimizer'):
        assert same(getattr(after, name), getattr(broken, name)), name
    assert (int(after.step), int(after.bad_steps), after.worst.tolist()) == (3, 1, [1, 3])
    after, _ = step(after, draw_batch(2), jax.random.key(2))
    after, _ = step(after.replace(discriminators=states[2].discriminators), draw_batch(2), jax.random.key(2))
    assert (int(after.bad_steps), after.worst.tolist()) == (0, [2, 4])
    assert not same(after.generators, broken.generators)


def test_eight_devices_and_one_have_the_same_losses_for_ten_steps(trained):
    """To 1e-5 for five steps; by the tenth, rounding has turned signs of the L1 losses' gradients: 1e-4."""
    _, step, states = trained
    placement = make_placement(8)
    alone, together = states[2], jax.device_put(states[2], placement.replicated)
    for index in range(10):
        batch, key = draw_batch(index, 8), jax.random.key(index)
        alone, metrics = step(alone, batch, key)
        together, shared = step(together, jax.device_put(batch, placement.split(0)), key)
        for name in metrics.keys() - {'judged_rightly'}:
            tolerance = 1e-5 if index < 5 else 1e-4
            np.testing.assert_allclose(shared[name], metrics[name], rtol=tolerance, err_msg=f'{name}, step {index}')
    for found, expected in zip(jax.tree.leaves(together.pools), jax.tree.leaves(alone.pools), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_half_of_the_images_are_mirrored():
    images = jnp.broadcast_to(jnp.arange(3.0)[None, None, :, None], (400, 2, 3, 1))
    flipped = cyclegan._flip(jax.random.key(0), images)
    first = np.asarray(flipped[:, 0, 0, 0])
    assert set(first.tolist()) == {0.0, 2.0}
    assert abs((first == 2).mean() - 0.5) < 0.08
    np.testing.assert_array_equal(flipped[:, 0, 2, 0], 2 - first)


def test_pixels_come_back_from_the_range():
    pixels = np.arange(256, dtype=np.uint8)
    scaled = to_range(pixels)
    assert (float(scaled[0]), float(scaled[255])) == (-1.0, 1.0)
    np.testing.assert_array_equal(to_pixels(scaled), pixels)
    assert to_pixels(jnp.array([-1.2, 1.2])).tolist() == [0, 255]


def test_translating_uses_the_direction_asked_for(trained):
    task, _, states = trained
    images = draw_batch(0)['images_a']
    model, _ = states[2].split()
    there, back = (cyclegan.translate(task.generator, model, images, way) for way in ('a_to_b', 'b_to_a'))
    assert there.shape == images.shape
    assert there.dtype == jnp.uint8
    expected = task.generator.apply({'params': model['a_to_b']}, to_range(images))
    np.testing.assert_allclose(to_range(there), expected, atol=1 / 255)
    assert not (there == back).all()
