"""Networks against the same ones written in PyTorch, with the same weights, in evaluation and in training."""

import jax
import numpy as np
import pytest

from fer_jax.models import create_model

torch = pytest.importorskip('torch', reason='the reference implementation')
from benchmarks.torch_networks import build, draw  # noqa: E402 (it imports PyTorch)

# Side and channels.
INPUTS = {
    'shallow_cnn': (20, 3),
    'wider_cnn': (26, 1),
    'resnet10': (20, 1),
    'resnet18': (21, 1),
    'resnet34': (32, 3),
    'vgg19': (64, 3),
    'vgg_pairs': (32, 1),
    'affectnet_cnn': (65, 3),
    'baseline_cnn': (50, 3),
}


@pytest.mark.parametrize('name', INPUTS)
def test_outputs_and_batch_statistics_equal_pytorchs(name):
    side, channels = INPUTS[name]
    model = create_model(name, 7, dropout=0.0)
    if name == 'vgg_pairs':
        model = model.clone(hidden=(64, 32))  # instead of 4096: that is time only
    variables = draw(model, side, channels)
    network, reference = build(name, variables)
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
