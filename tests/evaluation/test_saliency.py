"""Grad-CAM against a case computed by hand, and against PyTorch's autograd on the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.data.preprocess import Preprocessing
from fer_jax.evaluation.inference import stack_members
from fer_jax.evaluation.saliency import grad_cam, make_saliency
from fer_jax.models import MODELS, create_model


def test_maps_are_weighted_by_the_mean_of_their_gradients():
    maps = np.array([[[1.0, 4.0], [2.0, 0.0]], [[3.0, 1.0], [0.0, 2.0]]])[None]  # [1, 2, 2, 2]
    gradients = np.array([[[4.0, -1.0], [0.0, -1.0]], [[0.0, -1.0], [0.0, -1.0]]])[None]
    # The first map weighs 4/4 = 1, the second -1: [[1 - 4, 2 - 0], [3 - 1, 0 - 2]], of which the highest is 2.
    np.testing.assert_allclose(grad_cam(maps, gradients)[0], [[0, 1], [1, 0]], atol=1e-6)
    np.testing.assert_array_equal(grad_cam(maps, 0 * gradients)[0], np.zeros((2, 2)))


def drawn(model, side, channels, seed):
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, side, side, channels)))
    return jax.tree.map(
        lambda leaf: (random.normal(size=leaf.shape) / np.sqrt(max(1, np.prod(leaf.shape[:-1])))).astype(np.float32),
        shapes,
    )


@pytest.mark.parametrize('classes', [(0, 2), (1, 1)])
def test_the_maps_are_those_of_pytorchs_autograd(classes):
    torch = pytest.importorskip('torch', reason='the reference implementation')
    functional = torch.nn.functional
    model, how = create_model('shallow_cnn', 3), Preprocessing(14, 1, crop=12, mean=100.0, deviation=50.0)
    members = [drawn(model, 12, 1, seed) for seed in (0, 1)]
    images = np.random.default_rng(2).integers(0, 256, (2, 14, 14, 1)).astype(np.uint8)
    found = make_saliency(model, how)(stack_members(members), images, np.array(classes))
    assert found.shape == (2, 12, 12)
    heat = []
    for variables in members:
        weights = {
            name: {kind: torch.tensor(np.array(values)) for kind, values in layer.items()}
            for name, layer in variables['params'].items()
        }
        x = torch.tensor((images[:, 1:13, 1:13].astype(np.float32) - 100) / 50).permute(0, 3, 1, 2)
        for layer in ('Conv_0', 'Conv_1'):
            kernel = weights[layer]['kernel'].permute(3, 2, 0, 1)
            x = functional.relu(
                functional.max_pool2d(functional.conv2d(x, kernel, weights[layer]['bias'], padding=2), 2)
            )
        maps = x.detach().requires_grad_()
        hidden = maps.permute(0, 2, 3, 1).flatten(1) @ weights['Dense_0']['kernel'] + weights['Dense_0']['bias']
        logits = functional.relu(hidden) @ weights['head']['kernel'] + weights['head']['bias']
        logits[torch.arange(2), torch.tensor(classes)].sum().backward()
        cam = functional.relu((maps.grad.mean((2, 3), keepdim=True) * maps).sum(1)).detach()
        heat.append(cam / cam.amax((1, 2), keepdim=True).clamp_min(1e-12))
    mean = torch.stack(heat).mean(0)[:, None]
    expected = functional.interpolate(mean, (12, 12), mode='bilinear', align_corners=False)[:, 0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
    assert expected.max() > 0.1


@pytest.mark.parametrize('name', MODELS)
def test_every_network_has_maps_that_the_logits_depend_on(name):
    """Traced only: the gradient by the maps exists and is no constant zero."""
    model = create_model(name, 3)
    images = jnp.zeros((2, 48, 48, 1))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    maps = jax.eval_shape(model.apply, variables, images)[1]['maps']

    def logit(shift, variables):
        return model.apply({**variables, 'saliency': {'shift': shift}}, images)[0][:, 1].sum()

    traced = str(jax.make_jaxpr(jax.grad(logit))(jnp.zeros(maps.shape), variables).jaxpr.outvars[0])
    assert 'saliency' not in variables and not traced.startswith('0'), traced
