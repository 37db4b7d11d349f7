"""Our networks written in PyTorch, out of the same variables: what tests compare with, and benchmarks run beside."""

import jax
import jax.numpy as jnp
import numpy as np
import torch


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

    def dense(self, name, after=None):
        """A dense layer; after the flattened maps of a convolution: Flax flattens [H, W, C], PyTorch [C, H, W]."""
        kernel = np.asarray(self.params[name]['kernel'])
        if after:
            channels = self.params[after]['kernel'].shape[-1]
            kernel = kernel.reshape(-1, channels, kernel.shape[-1]).transpose(1, 0, 2).reshape(kernel.shape)
        layer = torch.nn.Linear(*kernel.shape)
        layer.weight.data = torch.tensor(np.array(kernel.T))
        layer.bias.data = torch.tensor(np.array(self.params[name]['bias']))
        return layer


def plain(reference, convolutions):
    layers = []
    for index in range(convolutions):
        layers += [reference.conv(f'Conv_{index}'), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
    hidden = [reference.dense('Dense_0', f'Conv_{convolutions - 1}'), torch.nn.ReLU()]
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


def vgg(reference, counts, hidden):
    """`counts` convolutions per stage, `hidden` dense layers."""
    layers, index = [], 0
    for count in counts:
        for _ in range(count):
            layers += [reference.conv(f'Conv_{index}'), reference.norm(f'BatchNorm_{index}'), torch.nn.ReLU()]
            index += 1
        layers += [torch.nn.MaxPool2d(2)]
    if not hidden:
        layers += [torch.nn.AdaptiveAvgPool2d(1)]
    layers += [torch.nn.Flatten()]
    last = f'Conv_{index - 1}'
    for index in range(hidden):
        layers += [reference.dense(f'Dense_{index}', None if index else last), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, reference.dense('head'))


def affectnet(reference):
    """The layers in the order of seed 001's script; dropout is left out here and off in the comparison."""
    conv = lambda index: [reference.conv(f'Conv_{index}', padding=0), torch.nn.ReLU()]
    norm = lambda index: reference.norm(f'BatchNorm_{index}', torch.nn.BatchNorm1d if index > 4 else None)
    pool = torch.nn.MaxPool2d(2)
    layers = [*conv(0), norm(0), *conv(1), norm(1), pool, *conv(2), pool, norm(2), *conv(3), norm(3), pool]
    layers += [*conv(4), pool, norm(4), torch.nn.Flatten()]
    for index in range(3):
        layers += [reference.dense(f'Dense_{index}', None if index else 'Conv_4'), torch.nn.ReLU(), norm(5 + index)]
    return torch.nn.Sequential(*layers, reference.dense('head'))


def baseline(reference):
    layers = []
    for index in range(5):
        layers += [reference.conv(f'Conv_{index}'), torch.nn.ReLU()] + [torch.nn.MaxPool2d(2)] * (index < 4)
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), reference.dense('head', 'Conv_4'))


_KERAS = {'epsilon': 1e-3, 'momentum': 0.01}  # Keras's momentum of .99 is PyTorch's .01
# Of each network how it is built, and options of the reference.
_NETWORKS = {
    'shallow_cnn': (lambda r: plain(r, 2), {}),
    'wider_cnn': (lambda r: plain(r, 3), {}),
    'resnet10': (lambda r: torch.nn.Sequential(torch.nn.PixelUnshuffle(2), resnet(r, (1, 2, 1))), {}),
    'resnet18': (lambda r: resnet(r, (2, 2, 2, 2)), {}),
    'resnet34': (lambda r: resnet(r, (3, 4, 6, 3)), {}),
    'vgg19': (lambda r: vgg(r, (2, 2, 4, 4, 4), 0), {}),
    'vgg_pairs': (lambda r: vgg(r, (2, 2, 2, 2), 2), {}),
    'affectnet_cnn': (affectnet, _KERAS),
    'baseline_cnn': (baseline, {}),
}


def build(name, variables):
    """The network of that name out of our variables, and the reference that knows its BatchNorms; without dropout."""
    make, options = _NETWORKS[name]
    reference = Reference(variables, **options)
    return make(reference), reference
