"""Networks against hand-counted sizes; test_against_torch.py has their outputs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.models import MODELS, create_model, cyclegan
from fer_jax.models.layers import Conv, ConvPoolReLU, Dropout
from fer_jax.models.resnet import ResNet


def draw(model, side, channels, seed=0):
    """Variables of ordinary size in which no bias, mean or scale is 0 or 1; by numpy, which compiles nothing."""
    random = np.random.default_rng(seed)

    def array(path, leaf):
        values = random.normal(size=leaf.shape)
        if path[-1].key == 'kernel':
            return (values * np.sqrt(2 / np.prod(leaf.shape[:-1]))).astype(np.float32)
        return (0.1 * np.abs(values) + (path[-1].key in ('scale', 'var')) * 0.5).astype(np.float32)

    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, side, side, channels)))
    return jax.tree_util.tree_map_with_path(array, shapes)


def count(model, side, channels):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, side, side, channels)))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes['params']))


def images(n, side, channels, seed=0):
    return np.random.default_rng(seed).normal(size=(n, side, side, channels)).astype(np.float32)


def test_the_shallow_network_has_the_parameters_counted_by_hand():
    convolutions = (5 * 5 * 1 * 16 + 16) + (5 * 5 * 16 * 36 + 36)
    dense = (12 * 12 * 36 * 128 + 128) + (128 * 6 + 6)
    assert count(create_model('shallow_cnn', 6), 48, 1) == convolutions + dense == 679_306


def test_the_wider_network_has_the_parameters_counted_by_hand():
    convolutions = (25 * 1 * 32 + 32) + (25 * 32 * 64 + 64) + (25 * 64 * 64 + 64)
    dense = (6 * 6 * 64 * 128 + 128) + (128 * 7 + 7)
    assert count(create_model('wider_cnn', 7), 48, 1) == convolutions + dense == 450_503


@pytest.mark.parametrize(('name', 'published'), [('resnet18', 11_689_512), ('resnet34', 21_797_672)])
def test_residual_networks_have_the_published_parameters_but_for_the_stem(name, published):
    """Published: torchvision's, with a 7x7 stem, 3 channels, 1000 classes."""
    assert count(create_model(name, 1000), 48, 3) == published - 64 * 3 * (7 * 7 - 3 * 3)


def conv(inputs, outputs, norm=True):
    """Parameters of a 3x3 convolution with bias, and of the BatchNorm (scale and bias) that comes with it."""
    return 9 * inputs * outputs + outputs + norm * 2 * outputs


@pytest.mark.parametrize('side', [32, 44, 48, 64, 224])
def test_vgg19_has_the_parameters_counted_by_hand_at_any_size(side):
    convolutions = (
        conv(3, 64) + conv(64, 64) + conv(64, 128) + conv(128, 128) + conv(128, 256) + 3 * conv(256, 256)
        + conv(256, 512) + 7 * conv(512, 512)
    )  # fmt: skip
    assert count(create_model('vgg19', 7), side, 3) == convolutions + 512 * 7 + 7 == 20_038_983
    # torchvision's vgg19_bn, whose three dense layers take the pools' 512 * 7 * 7 to 4096, 4096 and 1000.
    classifier = (512 * 49 * 4096 + 4096) + (4096 * 4096 + 4096) + (4096 * 1000 + 1000)
    assert convolutions + classifier == 143_678_248


def test_vgg_pairs_has_the_parameters_counted_by_hand():
    convolutions = sum(conv(i, o) + conv(o, o) for i, o in [(1, 64), (64, 128), (128, 256), (256, 512)])
    dense = (2 * 2 * 512 * 4096 + 4096) + (4096 * 4096 + 4096) + (4096 * 7 + 7)
    assert count(create_model('vgg_pairs', 7), 40, 1) == convolutions + dense == 29_890_759


@pytest.mark.parametrize(('side', 'left', 'total'), [(48, 1, 1_744_456), (64, 2, 2_137_672), (128, 6, 6_331_976)])
def test_affectnet_cnn_has_the_parameters_counted_by_hand(side, left, total):
    """Without padding 64 pixels become 62, 60 | 30, 28 | 14, 12 | 6, 4 | 2."""
    convolutions = conv(3, 32) + conv(32, 64) + conv(64, 128) + conv(128, 256) + conv(256, 512)
    dense = sum(i * o + 3 * o for i, o in [(left * left * 512, 256), (256, 128), (128, 64)])
    assert count(create_model('affectnet_cnn', 8), side, 3) == convolutions + dense + 64 * 8 + 8 == total


def test_baseline_cnn_has_the_parameters_counted_by_hand():
    convolutions = sum(conv(i, o, norm=False) for i, o in [(3, 12), (12, 12), (12, 24), (24, 24), (24, 24)])
    assert count(create_model('baseline_cnn', 8), 224, 3) == convolutions + 14 * 14 * 24 * 8 + 8 == 52_316


FEATURES = {'shallow_cnn': 128, 'wider_cnn': 128, 'resnet18': 512, 'resnet34': 512, 'vgg19': 512, 'vgg_pairs': 4096}
FEATURES |= {'affectnet_cnn': 64, 'resnet10': 192}
LEAST = {'vgg19': 32, 'vgg_pairs': 16, 'affectnet_cnn': 48, 'baseline_cnn': 16}


@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize(('side', 'channels', 'dtype'), [(48, 1, 'bfloat16'), (49, 3, 'float32'), (64, 3, 'bfloat16')])
def test_any_size_gives_float32_logits_and_float32_parameters(name, side, channels, dtype):
    model = create_model(name, 5, dtype)
    batch = jnp.zeros((2, side, side, channels))
    variables = jax.eval_shape(model.init, jax.random.key(0), batch)
    logits, more = jax.eval_shape(model.apply, variables, batch)
    assert logits.shape == (2, 5)
    assert logits.dtype == jnp.float32
    assert more['features'].shape == (2, FEATURES.get(name, (side // 16) ** 2 * 24))
    assert more['features'].dtype == more['maps'].dtype == jnp.dtype(dtype)
    assert more['maps'].ndim == 4 and len(more['maps']) == 2 and min(more['maps'].shape[1:3]) >= 2
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize('channels', [1, 3])
def test_the_smallest_size_works_and_the_next_smaller_is_refused(name, channels):
    model, least = create_model(name, 5), LEAST.get(name, 8)
    shapes = lambda side: jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, side, side, channels)))
    assert all(leaf.size for leaf in jax.tree.leaves(shapes(least)))
    if name in LEAST:
        with pytest.raises(UserError, match=f'at least {least} pixels a side; it would see {least - 1}'):
            shapes(least - 1)


def test_bfloat16_is_near_float32():
    variables = draw(create_model('shallow_cnn', 5), 16, 1)
    batch = images(8, 16, 1)
    exact, _ = jax.jit(create_model('shallow_cnn', 5).apply)(variables, batch)
    rounded, _ = jax.jit(create_model('shallow_cnn', 5, 'bfloat16').apply)(variables, batch)
    assert 0 < np.abs(exact - rounded).max() < 0.05 * np.abs(exact).max()


def test_dropout_is_on_in_training_only_and_can_be_set():
    model = create_model('wider_cnn', 3)
    assert model.dropout == 0.3
    assert create_model('wider_cnn', 3, dropout=0.0).dropout == 0.0
    assert create_model('shallow_cnn', 3).dropout == create_model('baseline_cnn', 3).dropout == 0.0
    assert create_model('vgg19', 3).dropout == create_model('resnet18', 3).dropout == 0.5
    variables, batch = draw(model, 16, 1), images(2, 16, 1)
    train = jax.jit(lambda key: model.apply(variables, batch, train=True, rngs={'dropout': key})[0])
    calls = [train(jax.random.key(n)) for n in (0, 0, 1)]
    np.testing.assert_array_equal(calls[0], calls[1])
    assert np.abs(calls[0] - calls[2]).max() > 1e-3
    kept = jax.jit(create_model('wider_cnn', 3, dropout=0.0).apply)(variables, batch)[0]
    np.testing.assert_array_equal(jax.jit(model.apply)(variables, batch)[0], kept)


@pytest.mark.parametrize(('dropout', 'rates'), [(-1.0, [0.5, 0.3, 0.4, 0.25, 0.25]), (0.0, [0] * 5), (0.6, [0.6] * 5)])
def test_affectnet_cnn_has_seed_001s_dropouts_or_one_rate_for_all(dropout, rates):
    found = []

    def note(call, args, kwargs, context):
        if isinstance(context.module, Dropout) and not context.module.deterministic:
            found.append(context.module.rate)
        return call(*args, **kwargs)

    model = create_model('affectnet_cnn', 3, dropout=dropout)
    keys = {name: jax.random.key(0) for name in ('params', 'dropout')}
    with nn.intercept_methods(note):
        jax.eval_shape(lambda: model.init(keys, jnp.zeros((2, 48, 48, 1)), train=True))
    assert found == rates


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(UserError, match='did you mean resnet34'):
        create_model('resnet43', 5)
    with pytest.raises(UserError, match='shallow_cnn, wider_cnn, resnet10, resnet18, resnet34, vgg19'):
        create_model('x', 5)
    with pytest.raises(UserError, match='float32 or bfloat16'):
        create_model('wider_cnn', 5, 'float16')


def test_a_block_starts_as_its_shortcut():
    """The last scale is zero at the start (Goyal et al. 2017): without it deep networks start badly."""
    model = ResNet(num_classes=4, blocks=(1,))
    batch = images(2, 8, 1)
    variables = jax.jit(model.init)(jax.random.key(0), batch)
    params = variables['params']
    stem = nn.Conv(64, (3, 3), padding=1, use_bias=False).apply({'params': params['Conv_0']}, batch)
    expected = jax.nn.relu(stem / np.sqrt(1 + 1e-5)).mean((1, 2))
    np.testing.assert_allclose(jax.jit(model.apply)(variables, batch)[1]['features'], expected, atol=1e-5)


@pytest.mark.parametrize('side', [64, 65])
@pytest.mark.parametrize(
    'layer',
    [
        Conv(8, (3, 3), padding=1, dtype=jnp.bfloat16),
        cyclegan.Conv(8, (3, 3), padding=1, dtype=jnp.bfloat16),
        ConvPoolReLU(8, 3, dtype=jnp.bfloat16, blocked=False),
        ConvPoolReLU(8, 3, dtype=jnp.bfloat16, blocked=True),
    ],
    ids=lambda layer: type(layer).__module__.split('.')[-1] + type(layer).__name__ + str(getattr(layer, 'blocked', '')),
)
@pytest.mark.parametrize('devices', [1, 8])
def test_the_gradient_of_a_bias_counts_every_pixel_in_bfloat16(layer, devices, side, monkeypatch):
    monkeypatch.setattr(jax, 'device_count', lambda: devices)
    x = jnp.zeros((2, side, side, 20))
    variables = {'params': {'kernel': jnp.zeros((3, 3, 20, 8)), 'bias': jnp.ones(8)}}
    outputs = lambda variables: layer.apply(variables, x).astype(jnp.float32)
    slopes = jax.jit(jax.grad(lambda variables: outputs(variables).sum()))(variables)
    np.testing.assert_array_equal(slopes['params']['bias'], np.full(8, outputs(variables).size / 8))


def test_a_convolution_whose_bias_is_not_added_has_it_nevertheless():
    x = images(2, 8, 3)
    with_bias, without = (Conv(4, (3, 3), adds_bias=adds) for adds in (True, False))
    variables = nn.Conv(4, (3, 3)).init(jax.random.key(0), x)
    for layer in (with_bias, without):
        jax.tree.map(np.testing.assert_array_equal, layer.init(jax.random.key(0), x), variables)
    variables['params']['bias'] += 1
    np.testing.assert_allclose(with_bias.apply(variables, x), nn.Conv(4, (3, 3)).apply(variables, x), atol=1e-5)
    np.testing.assert_allclose(without.apply(variables, x) + 1, with_bias.apply(variables, x), atol=1e-6)


@pytest.mark.parametrize('side', [1, 3, 5, 7])
@pytest.mark.parametrize('size', [(8, 12), (9, 12)])
def test_convolution_in_blocks_is_the_plain_one_with_its_gradients(side, size):
    random = np.random.default_rng(0)
    draw = lambda *shape: random.normal(size=shape).astype(np.float32)
    x, variables = draw(3, *size, 2), {'params': {'kernel': draw(side, side, 2, 5), 'bias': draw(5)}}

    def outputs_and_gradients(apply):
        loss = lambda v, x: (jnp.sum(jnp.sin(apply(v, x))), apply(v, x))
        return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(variables, x)[::-1]

    reference = lambda v, x: nn.relu(nn.max_pool(nn.Conv(5, (side, side)).apply(v, x), (2, 2), (2, 2)))
    expected, slopes = outputs_and_gradients(reference)
    for blocked in (False, True):
        found, gradients = outputs_and_gradients(ConvPoolReLU(5, side, blocked=blocked).apply)
        np.testing.assert_allclose(found, expected, atol=2e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), gradients, slopes)
