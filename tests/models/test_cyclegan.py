import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.models.cyclegan import Discriminator, Generator, Upsample

torch = pytest.importorskip('torch', reason='the reference implementation')
from benchmarks.torch_translators import discriminator, draw, generator  # noqa: E402 (it imports PyTorch)


def count(model, channels):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, channels)))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_parameter_counts_are_the_published_ones():
    """The authors' code prints 11.378 M and 2.765 M for its default networks, 7.837 M with 6 blocks."""
    assert count(Generator(3), 3) == 11_378_179
    assert count(Generator(3, blocks=6), 3) == 7_837_699
    assert count(Discriminator(), 3) == 2_764_737
    assert count(Generator(1), 1) == 11_378_179 - 2 * (49 * 64 * 2) - 2
    assert count(Discriminator(), 1) == 2_764_737 - 16 * 64 * 2


@pytest.mark.parametrize(('shape', 'channels', 'blocks'), [((16, 24), 3, 2), ((32, 32), 1, 1)])
def test_the_generator_equals_pytorchs(shape, channels, blocks):
    model = Generator(channels, blocks=blocks, width=4)
    images = np.random.default_rng(1).uniform(-1, 1, (2, *shape, channels)).astype(np.float32)
    params = draw(model, images.shape)
    with torch.no_grad():
        network = generator(params, channels, 4, blocks).double()
        expected = network(torch.tensor(images.transpose(0, 3, 1, 2)).double()).numpy().transpose(0, 2, 3, 1)
    found = jax.jit(model.apply)({'params': params}, images)
    assert expected.std() > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(('side', 'channels', 'widths'), [(24, 1, (4, 6, 8, 10)), (32, 3, (4, 6, 8))])
def test_the_discriminator_equals_pytorchs(side, channels, widths):
    model = Discriminator(widths)
    images = np.random.default_rng(1).uniform(-1, 1, (2, side, side, channels)).astype(np.float32)
    params = draw(model, images.shape)
    with torch.no_grad():
        network = discriminator(params, channels, widths).double()
        expected = network(torch.tensor(images.transpose(0, 3, 1, 2)).double()).numpy()[:, 0]
    found = jax.jit(model.apply)({'params': params}, images)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found.shape == expected.shape


def test_upsampling_equals_pytorchs_with_its_gradients_but_for_the_bias():
    random = np.random.default_rng(0)
    x, aim = random.normal(size=(2, 5, 3, 4)), random.normal(size=(2, 10, 6, 6))
    params = {'kernel': random.normal(size=(3, 3, 4, 6)), 'bias': random.normal(size=6)}
    layer = torch.nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1).double()
    layer.weight.data = torch.tensor(params['kernel'].transpose(2, 3, 0, 1))
    layer.bias.data.zero_()
    theirs = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    out = layer(theirs)
    (out * torch.tensor(aim.transpose(0, 3, 1, 2))).sum().backward()

    def loss(params, x):
        out = Upsample(6).apply({'params': params}, x)
        return jnp.sum(out * aim), out

    narrow = jax.tree.map(np.float32, (params, x))
    (_, found), (of_params, of_x) = jax.value_and_grad(loss, (0, 1), has_aux=True)(*narrow)
    np.testing.assert_allclose(found, out.detach().numpy().transpose(0, 2, 3, 1), atol=1e-4)
    np.testing.assert_allclose(of_x, theirs.grad.numpy().transpose(0, 2, 3, 1), atol=1e-4)
    np.testing.assert_allclose(of_params['kernel'], layer.weight.grad.numpy().transpose(2, 3, 0, 1), atol=1e-4)
    assert not of_params['bias'].any()


def test_a_bias_before_instance_norm_is_there_and_does_nothing():
    images = np.random.default_rng(1).uniform(-1, 1, (1, 24, 24, 1)).astype(np.float32)
    for model, outer in (
        (Generator(1, blocks=1, width=4), ['Conv_3']),
        (Discriminator((4, 6, 8)), ['Conv_0', 'Conv_3']),
    ):
        params = draw(model, images.shape)
        gradients = jax.grad(lambda params, model=model: jnp.sum(model.apply({'params': params}, images) ** 2))(params)
        for name, layer in gradients.items():
            for inner in layer.values() if name.startswith('Residual') else [layer]:
                assert inner['bias'].any() == (name in outer) and inner['kernel'].any()


def test_any_size_comes_back_and_bfloat16_stays_near():
    images = np.random.default_rng(1).uniform(-1, 1, (1, 33, 50, 1)).astype(np.float32)
    model = Generator(1, blocks=1, width=4)
    params = {'params': draw(model, images.shape)}
    found = jax.jit(model.apply)(params, images)
    narrow = jax.jit(model.clone(dtype=jnp.bfloat16).apply)(params, images)
    assert found.shape == narrow.shape == images.shape
    assert found.dtype == narrow.dtype == jnp.float32
    assert 0 < float(jnp.abs(found - narrow).mean()) < 0.03
    for side in (32, 48, 50, 64, 128, 255, 256):
        shape = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        for network in (Generator(3), Discriminator()):
            made, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), shape)
            assert made.shape == (shape.shape if isinstance(network, Generator) else (1, side // 8 - 2, side // 8 - 2))


def test_images_too_small_for_patches_are_refused():
    with pytest.raises(UserError, match='Discriminator needs images of at least 24 pixels a side; it would see 23'):
        jax.eval_shape(Discriminator().init, jax.random.key(0), jnp.zeros((1, 23, 40, 3)))


def test_a_generator_that_adds_changes_nothing_before_it_is_trained_and_stays_in_range():
    images = np.random.default_rng(0).uniform(-1, 1, (2, 10, 9, 1)).astype(np.float32)
    adding = Generator(1, blocks=0, width=2, skip=True)
    params = jax.tree.map(jnp.asarray, draw(adding, images.shape))
    untrained = params | {'Conv_3': jax.tree.map(jnp.zeros_like, params['Conv_3'])}
    shapes = jax.eval_shape(adding.init, jax.random.key(0), jnp.asarray(images))['params']
    assert jax.tree.structure(shapes) == jax.tree.structure(untrained)
    np.testing.assert_array_equal(adding.apply({'params': untrained}, images), images)
    added = Generator(1, blocks=0, width=2).apply({'params': params}, images)
    made = adding.apply({'params': params}, images)
    np.testing.assert_allclose(made, np.clip(images + 2 * added, -1, 1), atol=1e-6)
    assert abs(made).max() == 1
