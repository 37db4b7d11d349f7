"""MTCNN's networks against the same networks written in PyTorch with the same weights."""

import numpy as np
import pytest

from fer_jax.faces import networks
from fer_jax.faces.weights import load_weights

torch = pytest.importorskip('torch', reason='PyTorch is the independent reference')


@pytest.fixture(scope='module')
def layers(package):
    return load_weights()


class Reference:
    def __init__(self, layers):
        self.layers = layers

    def tensor(self, name, kind):
        return torch.tensor(self.layers[name][kind])

    def prelu(self, x, name):
        return torch.nn.functional.prelu(x, self.tensor(name, 'slope')) if 'slope' in self.layers[name] else x

    def conv(self, x, name):
        kernel = self.tensor(name, 'kernel').permute(3, 2, 0, 1)
        return self.prelu(torch.nn.functional.conv2d(x, kernel, self.tensor(name, 'bias')), name)

    def dense(self, x, name):
        return self.prelu(torch.nn.functional.linear(x, self.tensor(name, 'kernel').T, self.tensor(name, 'bias')), name)

    def flat(self, x):
        return x.permute(0, 3, 2, 1).flatten(1)  # columns, rows, channels

    def pnet(self, x):
        x = pool(self.conv(x, 'conv1'), 2)
        x = self.conv(self.conv(x, 'conv2'), 'conv3')
        return self.conv(x, 'face').softmax(1)[:, 1], self.conv(x, 'box').permute(0, 2, 3, 1)

    def rnet(self, x):
        x = pool(self.conv(pool(self.conv(x, 'conv1'), 3), 'conv2'), 3)
        x = self.dense(self.flat(self.conv(x, 'conv3')), 'dense')
        return self.dense(x, 'face').softmax(1)[:, 1], self.dense(x, 'box')

    def onet(self, x):
        x = pool(self.conv(pool(self.conv(x, 'conv1'), 3), 'conv2'), 3)
        x = self.conv(pool(self.conv(x, 'conv3'), 2), 'conv4')
        x = self.dense(self.flat(x), 'dense')
        points = self.dense(x, 'points')
        points = torch.stack([points[:, :5], points[:, 5:]], 2)
        return self.dense(x, 'face').softmax(1)[:, 1], self.dense(x, 'box'), points


def pool(x, window):
    return torch.nn.functional.max_pool2d(x, window, 2, ceil_mode=True)


@pytest.mark.parametrize(
    ('name', 'shape'), [('pnet', (40, 62)), ('pnet', (37, 41)), ('rnet', (24, 24)), ('onet', (48, 48))]
)
def test_outputs_equal_pytorch(layers, astronaut, name, shape):
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (3, *shape, 3)).astype(np.uint8)
    corners = random.integers(0, (300, 200), (5, 2))
    crops = [astronaut[y : y + 2 * shape[0] : 2, x : x + 2 * shape[1] : 2] for y, x in corners]
    pixels = np.concatenate([noise, np.stack(crops)])
    ours = networks.NETWORKS[name](layers[name], pixels)
    with torch.no_grad():
        scaled = (torch.tensor(pixels, dtype=torch.float32).permute(0, 3, 1, 2) - 127.5) / 128
        theirs = getattr(Reference(layers[name]), name)(scaled)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == tuple(b.shape)
        np.testing.assert_allclose(a, b.numpy(), atol=1e-5)
    assert np.ptp(ours[0]) > 0.01, 'all scores alike: the comparison showed little'


# What the package mtcnn 1.0.0 gives under TensorFlow 2.21 for the pixels of the test below.
PACKAGE = {
    'pnet': (12, [0.0028662], [0.1639907, -0.1996209, 0.1397068, 0.1505416]),
    'rnet': (24, [0.0000491], [0.1465863, -0.0083306, -0.0993877, 0.1605728]),
    'onet': (48, [0.0472871], [0.0339144, -0.1386103, -0.0551675, 0.1578117]),
}
PACKAGE_POINTS = [(0.5769603, 0.3198442), (0.7535332, 0.3046471), (0.8182819, 0.5270699), (0.6227539, 0.7687837)]


@pytest.mark.parametrize('name', PACKAGE)
def test_outputs_equal_the_packages_own(layers, name):
    side, score, box = PACKAGE[name]
    pixels = (np.arange(side * side * 3) * 7 % 256).astype(np.uint8).reshape(1, side, side, 3)
    outputs = networks.NETWORKS[name](layers[name], pixels)
    np.testing.assert_allclose(outputs[0].ravel(), score, atol=1e-6)
    np.testing.assert_allclose(outputs[1].ravel(), box, atol=1e-5)
    if name == 'onet':
        np.testing.assert_allclose(outputs[2][0, :4], PACKAGE_POINTS, atol=1e-5)
