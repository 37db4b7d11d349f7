"""Networks against the same ones written in PyTorch, with the same weights, in evaluation and in training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.models import create_model

torch = pytest.importorskip('torch', reason='the reference implementation')


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


class Reference:
    """Builds PyTorch layers out of our variables, in the order in which they are named; remembers the BatchNorms."""

    def __init__(self, variables, epsilon=1e-5, momentum=0.1):
        self.params, self.stats = variables['params'], variables.get('batch_stats', {})
        self.options = {'eps': epsilon, 'momentum': momentum}
        self.norms = {}

    def under(self, name):
        child = Reference({'params': self.params[name], 'batch_stats': self.stats[name]})
        child.options, child.norms = self.options, self.norms
        child.prefix = f'{name}/'
        return child

    prefix = ''

    def conv(self, name, stride=1, padding=None):
        kernel = self.params[name]['kernel']
        padding = kernel.shape[0] // 2 if padding is None else padding
        bias = 'bias' in self.params[name]
        layer = torch.nn.Conv2d(kernel.shape[2], kernel.shape[3], kernel.shape[0], stride, padding, bias=bias)
        layer.weight.data = torch.tensor(np.array(kernel.transpose(3, 2, 0, 1)))
        if bias:
            layer.bias.data = torch.tensor(np.array(self.params[name]['bias']))
        return layer

    def norm(self, name, kind=None):
        weights, running = self.params[name], self.stats[name]
        layer = (kind or torch.nn.BatchNorm2d)(len(weights['scale']), **self.options)
        layer.weight.data = torch.tensor(np.array(weights['scale']))
        layer.bias.data = torch.tensor(np.array(weights['bias']))
        layer.running_mean = torch.tensor(np.array(running['mean']))
        layer.running_var = torch.tensor(np.array(running['var']))
        layer.register_forward_hook(self._count)
        self.norms[self.prefix + name] = layer
        return layer

    @staticmethod
    def _count(layer, inputs, _):
        layer.values_per_channel = inputs[0].numel() // inputs[0].shape[1]

    def dense(self, name, pixels=0):
        """A dense layer; after a flattened image of `pixels` pixels: Flax flattens [H, W, C], PyTorch [C, H, W]."""
        kernel = self.params[name]['kernel']
        if pixels:
            kernel = kernel.reshape(pixels, -1, kernel.shape[-1]).transpose(1, 0, 2).reshape(kernel.shape)
        layer = torch.nn.Linear(*kernel.shape)
        layer.weight.data = torch.tensor(np.array(kernel.T))
        layer.bias.data = torch.tensor(np.array(self.params[name]['bias']))
        return layer


def plain(reference, side, channels):
    layers = []
    for index in range(len(channels)):
        layers += [reference.conv(f'Conv_{index}'), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
    left = side // 2 ** len(channels)
    hidden = [reference.dense('Dense_0', left * left), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), *hidden, reference.dense('head'))


class Block(torch.nn.Module):
    def __init__(self, reference, stride):
        super().__init__()
        self.conv1, self.conv2 = reference.conv('Conv_0', stride), reference.conv('Conv_1')
        self.bn1, self.bn2 = reference.norm('BatchNorm_0'), reference.norm('BatchNorm_1')
        self.down = torch.nn.Sequential()
        if 'Conv_2' in reference.params:
            self.down = torch.nn.Sequential(reference.conv('Conv_2', stride), reference.norm('BatchNorm_2'))

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.down(x))


def resnet(reference, blocks):
    layers = [reference.conv('Conv_0'), reference.norm('BatchNorm_0'), torch.nn.ReLU()]
    strides = [2 if stage and not block else 1 for stage, n in enumerate(blocks) for block in range(n)]
    layers += [Block(reference.under(f'BasicBlock_{index}'), stride) for index, stride in enumerate(strides)]
    return torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), reference.dense('head'))


def vgg(reference, counts, hidden, pixels):
    """`counts` convolutions per stage; `pixels` are left after the last pool."""
    layers, index = [], 0
    for count in counts:
        for _ in range(count):
            layers += [reference.conv(f'Conv_{index}'), reference.norm(f'BatchNorm_{index}'), torch.nn.ReLU()]
            index += 1
        layers += [torch.nn.MaxPool2d(2)]
    if not hidden:
        layers += [torch.nn.AdaptiveAvgPool2d(1)]
    layers += [torch.nn.Flatten()]
    for index in range(hidden):
        layers += [reference.dense(f'Dense_{index}', 0 if index else pixels), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, reference.dense('head'))


def affectnet(reference, pixels):
    """The layers in the order of seed 001's script; dropout is left out here and off in the comparison."""
    conv = lambda index: [reference.conv(f'Conv_{index}', padding=0), torch.nn.ReLU()]
    norm = lambda index: reference.norm(f'BatchNorm_{index}', torch.nn.BatchNorm1d if index > 4 else None)
    pool = torch.nn.MaxPool2d(2)
    layers = [*conv(0), norm(0), *conv(1), norm(1), pool, *conv(2), pool, norm(2), *conv(3), norm(3), pool]
    layers += [*conv(4), pool, norm(4), torch.nn.Flatten()]
    for index in range(3):
        layers += [reference.dense(f'Dense_{index}', 0 if index else pixels), torch.nn.ReLU(), norm(5 + index)]
    return torch.nn.Sequential(*layers, reference.dense('head'))


def baseline(reference, pixels):
    layers = []
    for index in range(5):
        layers += [reference.conv(f'Conv_{index}'), torch.nn.ReLU()] + [torch.nn.MaxPool2d(2)] * (index < 4)
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), reference.dense('head', pixels))


KERAS = {'epsilon': 1e-3, 'momentum': 0.01}  # Keras's momentum of .99 is PyTorch's .01
# Name, side, channels, how the network is built in PyTorch, options of the reference.
NETWORKS = [
    ('shallow_cnn', 20, 3, lambda r: plain(r, 20, (16, 36)), {}),
    ('wider_cnn', 26, 1, lambda r: plain(r, 26, (32, 64, 64)), {}),
    ('resnet10', 20, 1, lambda r: torch.nn.Sequential(torch.nn.PixelUnshuffle(2), resnet(r, (1, 2, 1))), {}),
    ('resnet18', 21, 1, lambda r: resnet(r, (2, 2, 2, 2)), {}),
    ('resnet34', 32, 3, lambda r: resnet(r, (3, 4, 6, 3)), {}),
    ('vgg19', 64, 3, lambda r: vgg(r, (2, 2, 4, 4, 4), 0, 4), {}),
    ('vgg_pairs', 32, 1, lambda r: vgg(r, (2, 2, 2, 2), 2, 4), {}),
    ('affectnet_cnn', 65, 3, lambda r: affectnet(r, 4), KERAS),
    ('baseline_cnn', 50, 3, lambda r: baseline(r, 9), {}),
]


@pytest.mark.parametrize(('name', 'side', 'channels', 'build', 'options'), NETWORKS, ids=[n[0] for n in NETWORKS])
def test_outputs_and_batch_statistics_equal_pytorchs(name, side, channels, build, options):
    model = create_model(name, 7, dropout=0.0)
    if name == 'vgg_pairs':
        model = model.clone(hidden=(64, 32))  # instead of 4096: that is time only
    variables = draw(model, side, channels)
    reference = Reference(variables, **options)
    network = build(reference)
    batch = 40 if name == 'affectnet_cnn' else 6  # its last BatchNorms have one value per image and channel
    images = np.random.default_rng(0).normal(size=(batch, side, side, channels)).astype(np.float32)

    def theirs(train):  # in double precision: PyTorch's float32 BatchNorm over few values is off by up to .1 %
        with torch.no_grad():
            return network.double().train(train)(torch.tensor(images.transpose(0, 3, 1, 2)).double()).numpy()

    ours = jax.jit(lambda v, x, train: model.apply(v, x, train=train, mutable=['batch_stats']), static_argnums=2)
    expected = theirs(train=False)
    np.testing.assert_allclose(ours(variables, images, False)[0][0], expected, atol=1e-4 * np.abs(expected).max())
    if not reference.norms:
        return
    expected = theirs(train=True)
    (logits, _), moved = ours(variables, images, True)
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    assert_same_statistics(reference, variables['batch_stats'], moved['batch_stats'])


def assert_same_statistics(reference, before, after):
    """PyTorch's running variance is the unbiased one, n / (n - 1) of the one it (and Flax) normalises with."""
    found = 0
    for path, layer in reference.norms.items():
        old, new = before, after
        for key in path.split('/'):
            old, new = old[key], new[key]
        n, kept = layer.values_per_channel, 1 - layer.momentum
        np.testing.assert_allclose(new['mean'], layer.running_mean, atol=1e-4, err_msg=path)
        unbiased = kept * old['var'] + (np.asarray(new['var']) - kept * old['var']) * n / (n - 1)
        np.testing.assert_allclose(unbiased, layer.running_var, rtol=1e-4, atol=1e-4, err_msg=path)
        assert np.abs(layer.running_mean.numpy() - old['mean']).max() > 1e-3, f'{path} did not move'
        found += 1
    assert found == len(jax.tree.leaves(after)) // 2  # none was left out
