"""Networks against hand-counted sizes and against PyTorch with the same weights."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.models import MODELS, create_model
from fer_jax.models.layers import ConvMaxPool
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


def test_resnet34_has_the_published_parameters_but_for_the_stem():
    published = 21_797_672  # torchvision's resnet34, 7x7 stem, 3 channels, 1000 classes
    assert count(create_model('resnet34', 1000), 48, 3) == published - 64 * 3 * (7 * 7 - 3 * 3)


@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize(('side', 'channels'), [(32, 1), (44, 3), (45, 1), (64, 3)])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_any_size_gives_float32_logits_and_float32_parameters(name, side, channels, dtype):
    model = create_model(name, 5, dtype)
    batch = jnp.zeros((2, side, side, channels))
    variables = jax.eval_shape(model.init, jax.random.key(0), batch)
    logits, more = jax.eval_shape(model.apply, variables, batch)
    assert logits.shape == (2, 5)
    assert logits.dtype == jnp.float32
    assert more['features'].shape == (2, 512 if name == 'resnet34' else 128)
    assert more['features'].dtype == jnp.dtype(dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


def test_bfloat16_is_near_float32():
    variables = draw(create_model('shallow_cnn', 5), 16, 1)
    batch = images(8, 16, 1)
    exact, _ = create_model('shallow_cnn', 5).apply(variables, batch)
    rounded, _ = create_model('shallow_cnn', 5, 'bfloat16').apply(variables, batch)
    assert 0 < np.abs(exact - rounded).max() < 0.05 * np.abs(exact).max()


def test_dropout_is_on_in_training_only_and_can_be_set():
    model = create_model('wider_cnn', 3)
    assert model.dropout == 0.3
    assert create_model('wider_cnn', 3, dropout=0.0).dropout == 0.0
    assert create_model('shallow_cnn', 3).dropout == 0.0
    variables, batch = draw(model, 16, 1), images(2, 16, 1)
    calls = [model.apply(variables, batch, train=True, rngs={'dropout': jax.random.key(n)})[0] for n in (0, 0, 1)]
    np.testing.assert_array_equal(calls[0], calls[1])
    assert np.abs(calls[0] - calls[2]).max() > 1e-3
    np.testing.assert_array_equal(model.apply(variables, batch)[0], model.apply(variables, batch)[0])


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(UserError, match='did you mean resnet34'):
        create_model('resnet43', 5)
    with pytest.raises(UserError, match='shallow_cnn, wider_cnn, resnet34'):
        create_model('x', 5)
    with pytest.raises(UserError, match='float32 or bfloat16'):
        create_model('wider_cnn', 5, 'float16')


# --- the same weights in PyTorch ---


def load_conv(torch, layer, params):
    layer.weight.data = torch.tensor(np.array(params['kernel'].transpose(3, 2, 0, 1)))
    if 'bias' in params:
        layer.bias.data = torch.tensor(np.array(params['bias']))
    return layer


def load_dense(torch, params, kernel=None):
    kernel = params['kernel'] if kernel is None else kernel
    layer = torch.nn.Linear(*kernel.shape)
    layer.weight.data = torch.tensor(np.array(kernel.T))
    layer.bias.data = torch.tensor(np.array(params['bias']))
    return layer


@pytest.mark.parametrize(('name', 'channels', 'side'), [('shallow_cnn', (16, 36), 20), ('wider_cnn', (32, 64, 64), 26)])
def test_the_plain_networks_equal_pytorchs(name, channels, side):
    torch = pytest.importorskip('torch', reason='the reference implementation')
    model = create_model(name, 7)
    variables = draw(model, side, 3)
    params = variables['params']
    layers, before = [], 3
    for index, after in enumerate(channels):
        layers += [load_conv(torch, torch.nn.Conv2d(before, after, 5, padding=2), params[f'Conv_{index}'])]
        layers += [torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
        before = after
    left = side // 2 ** len(channels)
    # Flax flattens [H, W, C], PyTorch [C, H, W].
    kernel = params['Dense_0']['kernel'].reshape(left, left, before, 128).transpose(2, 0, 1, 3).reshape(-1, 128)
    layers += [torch.nn.Flatten(), load_dense(torch, params['Dense_0'], kernel), torch.nn.ReLU()]
    reference = torch.nn.Sequential(*layers, load_dense(torch, params['head'])).eval()
    batch = images(3, side, 3)
    expected = reference(torch.tensor(batch.transpose(0, 3, 1, 2))).detach().numpy()
    logits, more = model.apply(variables, batch)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert more['features'].shape == (3, 128)


def torch_resnet(torch, variables, blocks):
    """The usual ResNet in PyTorch, from our variables: a function of images [B, C, H, W] and the modules."""
    params, stats = variables['params'], variables['batch_stats']

    def conv(weights, stride=1):
        kernel = weights['kernel']
        layer = torch.nn.Conv2d(*kernel.shape[2:], kernel.shape[0], stride, kernel.shape[0] // 2, bias=False)
        return load_conv(torch, layer, weights)

    def norm(weights, running):
        layer = torch.nn.BatchNorm2d(len(weights['scale']))
        layer.weight.data = torch.tensor(np.array(weights['scale']))
        layer.bias.data = torch.tensor(np.array(weights['bias']))
        layer.running_mean = torch.tensor(np.array(running['mean']))
        layer.running_var = torch.tensor(np.array(running['var']))
        return layer

    class Block(torch.nn.Module):
        def __init__(self, weights, running, stride):
            super().__init__()
            self.conv1, self.conv2 = conv(weights['Conv_0'], stride), conv(weights['Conv_1'])
            self.bn1 = norm(weights['BatchNorm_0'], running['BatchNorm_0'])
            self.bn2 = norm(weights['BatchNorm_1'], running['BatchNorm_1'])
            self.down = torch.nn.Sequential()
            if 'Conv_2' in weights:
                down = norm(weights['BatchNorm_2'], running['BatchNorm_2'])
                self.down = torch.nn.Sequential(conv(weights['Conv_2'], stride), down)

        def forward(self, x):
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            return torch.relu(y + self.down(x))

    layers = [conv(params['Conv_0']), norm(params['BatchNorm_0'], stats['BatchNorm_0']), torch.nn.ReLU()]
    strides = [2 if stage and not block else 1 for stage, n in enumerate(blocks) for block in range(n)]
    layers += [
        Block(params[f'BasicBlock_{index}'], stats[f'BasicBlock_{index}'], stride)
        for index, stride in enumerate(strides)
    ]
    layers += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), load_dense(torch, params['head'])]
    return torch.nn.Sequential(*layers)


def test_resnet34_equals_pytorchs_in_evaluation():
    torch = pytest.importorskip('torch', reason='the reference implementation')
    model = create_model('resnet34', 7)
    variables = draw(model, 32, 3)
    reference = torch_resnet(torch, variables, (3, 4, 6, 3)).eval()
    batch = images(2, 32, 3)
    with torch.no_grad():
        expected = reference(torch.tensor(batch.transpose(0, 3, 1, 2))).numpy()
    logits = jax.jit(model.apply)(variables, batch)[0]
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


def test_batchnorm_in_training_equals_pytorchs_forward_and_moves_the_same_statistics():
    torch = pytest.importorskip('torch', reason='the reference implementation')
    model = ResNet(num_classes=4, blocks=(1, 1))
    variables = draw(model, 8, 3)
    reference = torch_resnet(torch, variables, (1, 1)).train()
    batch = images(6, 8, 3)
    expected = reference(torch.tensor(batch.transpose(0, 3, 1, 2))).detach().numpy()
    (logits, _), moved = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=['batch_stats']))(variables, batch)
    np.testing.assert_allclose(logits, expected, atol=2e-4)
    stem = reference[1]
    found = moved['batch_stats']['BatchNorm_0']
    np.testing.assert_allclose(found['mean'], stem.running_mean, atol=1e-5)
    # PyTorch's running variance is the unbiased one, n / (n - 1) of the one it (and Flax) normalises with.
    n, old = 6 * 8 * 8, np.asarray(variables['batch_stats']['BatchNorm_0']['var'])
    unbiased = 0.9 * old + (np.asarray(found['var']) - 0.9 * old) * n / (n - 1)
    np.testing.assert_allclose(unbiased, stem.running_var, atol=1e-5)


def test_a_block_starts_as_its_shortcut():
    """The last scale is zero at the start (Goyal et al. 2017): without it deep networks start badly."""
    model = ResNet(num_classes=4, blocks=(1,))
    batch = images(2, 8, 1)
    variables = jax.jit(model.init)(jax.random.key(0), batch)
    params = variables['params']
    stem = nn.Conv(64, (3, 3), padding=1, use_bias=False).apply({'params': params['Conv_0']}, batch)
    expected = jax.nn.relu(stem / np.sqrt(1 + 1e-5)).mean((1, 2))
    np.testing.assert_allclose(model.apply(variables, batch)[1]['features'], expected, atol=1e-5)


@pytest.mark.parametrize('side', [1, 3, 5, 7])
@pytest.mark.parametrize('size', [(8, 12), (9, 12)])
def test_convolution_in_blocks_is_the_plain_one_with_its_gradients(side, size):
    x = jax.random.normal(jax.random.key(0), (3, *size, 2))
    plain, blocks = (ConvMaxPool(5, side, blocked=blocked) for blocked in (False, True))
    variables = plain.init(jax.random.key(1), x)
    variables['params']['bias'] = jnp.arange(5.0)
    reference = nn.max_pool(nn.Conv(5, (side, side)).apply(variables, x), (2, 2), (2, 2))
    np.testing.assert_allclose(plain.apply(variables, x), reference, atol=1e-5)
    np.testing.assert_allclose(blocks.apply(variables, x), reference, atol=1e-5)
    gradients = [
        jax.grad(lambda v, x, of=of: jnp.sum(of.apply(v, x) ** 2), (0, 1))(variables, x) for of in (plain, blocks)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), *gradients)
