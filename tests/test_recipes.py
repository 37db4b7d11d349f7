"""The configurations of published recipes do what was published."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fer_jax import checks
from fer_jax.config import flatten, load_config
from fer_jax.models import create_model
from fer_jax.several import pair_config, read_pairs
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.optimizer import OptimizerOptions, ScheduleOptions, make_optimizer, make_schedule
from fer_jax.translators import make_generator

SHORTENED = ('data.name', 'train.steps', 'train.batch_size', 'evaluation.every_steps', 'evaluation.batch_size')
CONFIGS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'configs')


def load(name):
    return load_config(os.path.join(CONFIGS, name))


def test_seed_003s_rate_stands_for_20_epochs_and_then_falls_by_a_fifth_in_each():
    config = load('ckplus/vgg19.py')
    schedule = make_schedule(ScheduleOptions(**config.schedule), config.optimizer.learning_rate, 60 * 28, 28)
    rates = [float(schedule(28 * epoch)) for epoch in range(60)]
    np.testing.assert_allclose(rates, [0.01] * 20 + [0.01 * 0.8**n for n in range(1, 41)], rtol=1e-5)
    assert config.train.epochs == 60


def test_seed_003s_networks_share_one_recipe():
    for data in ('ckplus', 'fer2013'):
        one, other = load(f'{data}/vgg19.py').to_dict(), load(f'{data}/resnet18.py').to_dict()
        assert (one['model'].pop('name'), other['model'].pop('name')) == ('vgg19', 'resnet18')
        assert one == other


@pytest.mark.parametrize('name', ['ckplus/vgg19.py', 'fer2013/resnet18.py'])
def test_seed_003s_update_is_pytorchs_with_clamped_gradients(name):
    torch = pytest.importorskip('torch', reason='the reference implementation')
    random = np.random.default_rng(0)
    kernel, gradients = random.normal(size=(4, 3)), random.normal(scale=0.2, size=(5, 4, 3))
    config = load(name)
    rule = make_optimizer(OptimizerOptions(**config.optimizer), optax.constant_schedule(config.optimizer.learning_rate))
    params = {'kernel': jnp.asarray(kernel)}
    state = rule.init(params)
    theirs = torch.nn.Parameter(torch.tensor(kernel))
    reference = torch.optim.SGD([theirs], lr=0.01, momentum=0.9, weight_decay=5e-4)
    for gradient in gradients:
        changes, state = rule.update({'kernel': jnp.asarray(gradient)}, state, params)
        params = optax.apply_updates(params, changes)
        theirs.grad = torch.tensor(gradient).clamp(-0.1, 0.1)
        reference.step()
    np.testing.assert_allclose(params['kernel'], theirs.detach().numpy(), atol=1e-6)


def test_seed_001s_l2_loss_is_the_optimisers_decay():
    """Keras adds .01 times the sum of squares of kernels and biases of all layers but the head to the loss.

    `adam` with a decay of .02 moves those kernels alike. It does not decay the biases, and it does the head's kernel.
    """
    model = create_model('affectnet_cnn', 8)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 48, 48, 3)))['params']
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(random.normal(scale=0.1, size=leaf.shape), jnp.float32), shapes)
    slopes = jax.tree.map(lambda leaf: jnp.asarray(random.normal(scale=1e-3, size=leaf.shape), jnp.float32), shapes)

    def data_loss(params):
        return sum(
            jnp.sum(slope * jnp.sin(p)) for slope, p in zip(*map(jax.tree.leaves, (slopes, params)), strict=True)
        )

    def seeds_loss(params):
        layers = [layer for name, layer in params.items() if name != 'head' and 'kernel' in layer]
        squares = sum(jnp.sum(layer['kernel'] ** 2) + jnp.sum(layer['bias'] ** 2) for layer in layers)
        return data_loss(params) + 0.01 * squares

    @jax.jit
    def three_steps(params):
        def run(rule, loss):
            moved, state = params, rule.init(params)
            for _ in range(3):
                changes, state = rule.update(jax.grad(loss)(moved), state, moved)
                moved = optax.apply_updates(moved, changes)
            return jax.tree.map(lambda new, old: new - old, moved, params)

        options = OptimizerOptions(**load('affectnet/affectnet_cnn.py').optimizer)
        ours = make_optimizer(options, optax.constant_schedule(options.learning_rate))
        return run(ours, data_loss), run(optax.adam(1e-4), seeds_loss), run(optax.adam(1e-4), data_loss)

    ours, seeds, plain = three_steps(params)
    for name in ('Conv_0', 'Conv_4', 'Dense_0', 'Dense_2'):
        np.testing.assert_allclose(ours[name]['kernel'], seeds[name]['kernel'], atol=1e-6)
        assert np.abs(ours[name]['kernel'] - plain[name]['kernel']).max() > 1e-4
        np.testing.assert_allclose(ours[name]['bias'], plain[name]['bias'], atol=1e-7)
    np.testing.assert_allclose(seeds['head']['kernel'], plain['head']['kernel'], atol=1e-7)
    assert np.abs(ours['head']['kernel'] - plain['head']['kernel']).max() > 1e-4


def test_affectnets_side_is_the_files_argument():
    assert load('affectnet/affectnet_cnn.py').data.size == 64
    assert load('affectnet/affectnet_cnn.py:128').data.size == 128


def test_seed_001s_recipe_trains(make_run, make_dataset):
    """Three steps of everything that the recipe has: BatchNorm, dropout, plateau, weights, augmentation, limits."""
    recipe = flatten(load('affectnet/affectnet_cnn.py:48'))
    fields = {name.replace('.', '__'): value for name, value in recipe.items() if name not in SHORTENED}
    data = make_dataset(side=48, channels=3, classes=('happiness', 'neutral', 'sadness'))
    fields |= {'train__steps': 3, 'data__limit': ('happiness=3', 'neutral=4')}
    workdir = make_run(data=data, **fields)
    assert Checkpoints(workdir).steps() == [3]
    assert Checkpoints(workdir).best() == 3


@pytest.mark.parametrize('name', ['synthetic', 'fer2013', 'affectnet'])
def test_pairs_have_the_papers_losses_and_rate(name):
    """But for the weight of the way back and the rate on drawn faces, which docs/cyclegan.md argues for."""
    config = load(f'cyclegan/{name}.py')
    for pair in read_pairs(config) or [config.pair]:
        checks.check_config(pair_config(config, pair))
    assert (config.cyclegan.identity, config.cyclegan.pool) == (0.5, 50)
    wanted = (1.0, 4e-4) if name == 'synthetic' else (10.0, 2e-4)
    assert (config.cyclegan.cycle, config.optimizer.learning_rate) == wanted
    schedule = make_schedule(ScheduleOptions(**config.schedule), 1.0, 1000, 10.0)
    assert [float(schedule(step)) for step in (500, 750, 1000)] == [1.0, 0.5, 0.0]
    optimizer = make_optimizer(OptimizerOptions(**config.optimizer), optax.constant_schedule(1.0))
    params, gradient = {'x': jnp.ones(2)}, {'x': jnp.full(2, 0.3)}
    state = optimizer.init(params)
    paper = optax.adam(1.0, b1=0.5)
    theirs = paper.init(params)
    for scale in (1.0, -2.0):
        given = jax.tree.map(lambda leaf, scale=scale: scale * leaf, gradient)
        (change, state), (wanted, theirs) = optimizer.update(given, state, params), paper.update(given, theirs, params)
        np.testing.assert_allclose(change['x'], wanted['x'], rtol=1e-6)


def test_seed_001s_networks_are_the_papers_at_full_width():
    config = load('cyclegan/affectnet.py')
    assert config.data.size == 128
    assert load('cyclegan/affectnet.py:64').data.size == 64
    assert len(read_pairs(config)) == 8
    generator = make_generator(config, 3)
    shapes = jax.eval_shape(generator.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))['params']
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 11_378_179  # of the authors' resnet_9blocks
