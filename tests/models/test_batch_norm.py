"""BatchNorm over parts of a batch: flax's own over one, PyTorch's on each, local where devices hold whole parts."""

import re

import flax.linen as nn
import jax
import numpy as np
import pytest

from fer_jax.models.norms import BatchNorm
from fer_jax.models.resnet import ResNet
from fer_jax.training.mesh import make_placement

_COLLECTIVES = re.compile(r' (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(')


def draw(layer, shape=(16, 4, 5, 3)):
    """An input whose parts differ in mean and spread, and variables that are not the initial ones."""
    random = np.random.default_rng(0)
    x = random.normal(size=shape) * np.linspace(0.5, 2, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    x = np.asarray(x + np.linspace(-1, 3, shape[0]).reshape(x.shape[:1] + (1,) * (x.ndim - 1)), np.float32)
    variables = layer.init(jax.random.key(0), x)
    return x, jax.tree.map(lambda array: random.uniform(0.5, 1.5, array.shape).astype(np.float32), variables)


@pytest.mark.parametrize('shape', [(16, 4, 5, 3), (16, 7)])
def test_one_group_is_flaxs_own_to_the_bit(shape):
    options = {'use_running_average': False, 'momentum': 0.9, 'epsilon': 1e-3}
    x, variables = draw(BatchNorm(**options), shape)
    found = BatchNorm(**options).apply(variables, x, mutable=['batch_stats'])
    expected = nn.BatchNorm(**options).apply(variables, x, mutable=['batch_stats'])
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize('groups', [1, 2, 8])
@pytest.mark.parametrize('shape', [(16, 4, 5, 3), (16, 7)])
def test_each_group_is_what_pytorch_makes_of_that_part_alone(groups, shape):
    torch = pytest.importorskip('torch', reason='the reference implementation')
    layer = BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5, groups=groups)
    x, variables = draw(layer, shape)
    found, updates = layer.apply(variables, x, mutable=['batch_stats'])
    theirs = [torch_norm(torch, variables, part) for part in np.split(x, groups)]
    np.testing.assert_allclose(found, np.concatenate([out for out, _, _ in theirs]), atol=1e-4)
    for place, name in ((1, 'mean'), (2, 'var')):
        expected = np.mean([part[place] for part in theirs], 0)
        np.testing.assert_allclose(updates['batch_stats'][name], expected, rtol=1e-5)


def torch_norm(torch, variables, part):
    """Output, and running mean and variance: PyTorch counts the latter without bias (n - 1), flax with (n)."""
    weights, stats = variables['params'], variables['batch_stats']
    norm = (torch.nn.BatchNorm2d if part.ndim == 4 else torch.nn.BatchNorm1d)(part.shape[-1], momentum=0.1)
    norm.weight.data, norm.bias.data = torch.tensor(weights['scale']), torch.tensor(weights['bias'])
    norm.running_mean, norm.running_var = torch.tensor(stats['mean']), torch.tensor(stats['var'])
    out = np.moveaxis(norm(torch.tensor(np.moveaxis(part, -1, 1).copy())).detach().numpy(), 1, -1)
    n = part.size // part.shape[-1]
    moved = norm.running_var.numpy() - 0.9 * stats['var']
    return out, norm.running_mean.numpy(), 0.9 * stats['var'] + moved * (n - 1) / n


def test_gradients_are_those_of_the_parts_normalised_apart():
    options = {'use_running_average': False, 'momentum': 0.9}
    grouped, whole = BatchNorm(**options, groups=4), nn.BatchNorm(**options)
    x, variables = draw(grouped)
    weight = np.random.default_rng(1).normal(size=x.shape)

    def of_grouped(x):
        return (grouped.apply(variables, x, mutable=['batch_stats'])[0] * weight).sum()

    def of_part(x, weight):
        return (whole.apply(variables, x, mutable=['batch_stats'])[0] * weight).sum()

    parts = [jax.grad(of_part)(*pair) for pair in zip(np.split(x, 4), np.split(weight, 4), strict=True)]
    np.testing.assert_allclose(jax.grad(of_grouped)(x), np.concatenate(parts), atol=1e-5)


def test_evaluation_knows_no_groups():
    grouped = BatchNorm(use_running_average=True, groups=8)
    x, variables = draw(grouped)
    expected = nn.BatchNorm(use_running_average=True).apply(variables, x[:3])
    np.testing.assert_array_equal(grouped.apply(variables, x[:3]), expected)  # three images are no eight groups


def test_a_batch_that_does_not_divide_is_refused():
    layer = BatchNorm(use_running_average=False, groups=5)
    x, variables = draw(layer)
    with pytest.raises(ValueError, match='a batch of 16 does not divide into 5 groups'):
        layer.apply(variables, x, mutable=['batch_stats'])


def compiled_forward(groups, devices):
    """The program that makes logits, cut like the images, in training, of a network with four BatchNorms."""
    model = ResNet(num_classes=3, blocks=(1,), norm_groups=groups)
    placement = make_placement(32, jax.devices()[:devices])
    images = np.zeros((32, 8, 8, 1), np.float32)
    variables = model.init(jax.random.key(0), images[:1])
    places = {'in_shardings': (placement.replicated, placement.split(0)), 'out_shardings': placement.split(0)}

    def forward(variables, images):
        return model.apply(variables, images, train=True, mutable=['batch_stats'])[0][0]

    return jax.jit(forward, **places).lower(variables, images).compile().as_text()


@pytest.mark.parametrize(('groups', 'devices', 'sent'), [(1, 8, True), (8, 8, False), (16, 8, False), (4, 8, True)])
def test_whole_groups_on_each_device_need_no_communication(groups, devices, sent):
    assert bool(_COLLECTIVES.findall(compiled_forward(groups, devices))) == sent
