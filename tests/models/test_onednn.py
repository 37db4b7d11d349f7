"""oneDNN's convolutions against XLA's own: values, gradients, whole networks; and what becomes of their programs."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from fer_jax.models import create_model, onednn
from fer_jax.models.convolution import _ends, convolve
from fer_jax.models.cyclegan import Generator
from fer_jax.models.layers import ConvPoolReLU
from tests.models.near import assert_near, draw


@pytest.fixture
def here(alone):
    if not onednn.types():
        pytest.skip('oneDNN is called with Linux, x86-64, AVX-512 and a jaxlib that was tried')


def _plain(strides, padding):
    axes = ('NHWC', 'HWIO', 'NHWC')
    return lambda x, kernel: jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=axes)


@pytest.mark.parametrize('stride', [1, 2, 3])
@pytest.mark.parametrize(('kernel', 'border'), [(1, 0), (3, 1), (3, 0), (4, 1), (5, 2), (7, 0)])
@pytest.mark.parametrize('sides', [(8, 10), (9, 7)])
def test_a_convolution_and_both_gradients_are_xlas(here, sides, kernel, border, stride):
    x, weights = draw(4, *sides, 5), draw(kernel, kernel, 5, 6)
    padding, strides = ((border, border),) * 2, (stride, stride)
    out, pull = jax.vjp(_plain(strides, padding), x, weights)
    change = draw(*out.shape)
    by_input, by_kernel = pull(change)
    assert_near(onednn.convolve(x, weights, padding, strides), out, 1e-6)
    assert_near(onednn.gradient_by_input(weights, change, x.shape, padding, strides), by_input, 1e-6)
    turned = x.transpose(1, 2, 3, 0), change.transpose(1, 2, 0, 3)
    ends = _ends(x, weights, change, strides, padding)
    assert_near(onednn.gradient_by_kernel(*turned, ends, strides), by_kernel, 1e-6)


def test_a_product_is_that_of_the_transposed_matrix(here):
    first, second = draw(300, 7), draw(300, 5)
    assert_near(onednn.product(first, second), first.T @ second, 1e-6)


@pytest.mark.parametrize('few', [False, True])
@pytest.mark.parametrize(
    ('images', 'side', 'channels', 'kernel', 'stride'),
    [
        (4, 8, (32, 40), 3, 1),  # all three by oneDNN
        (12, 20, (32, 40), 3, 1),  # a large map, many images: in float32 the kernel's gradient as XLA has it
        (4, 8, (32, 40), 3, 2),
        (2, 12, (1, 24), 5, 1),  # few numbers under the kernel
        (2, 8, (24, 32), 1, 2),
        (2, 8, (24, 3), 3, 1),  # few channels out
        (4, 8, (128, 130), 3, 1),  # Winograd's way
    ],
)
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_whatever_computes_a_layer_and_its_gradients_the_numbers_are_xlas(
    here, dtype, images, side, channels, kernel, stride, few
):
    if dtype not in onednn.types():
        pytest.skip('this processor has no bfloat16')
    x, weights = draw(images, side, side + 2, channels[0], dtype=dtype), draw(kernel, kernel, *channels, dtype=dtype)
    padding, strides = ((kernel // 2, kernel // 2),) * 2, (stride, stride)
    exact = [array.astype('float32') for array in (x, weights)]
    out, pull = jax.vjp(_plain(strides, padding), *exact)
    change = draw(*out.shape, dtype=dtype)
    ours, back = jax.vjp(jax.jit(lambda x, w: convolve(x, w, strides, padding, few=few)), x, weights)
    tolerance = 2e-6 if dtype == 'float32' else 1e-2
    for found, expected in zip((ours, *back(change)), (out, *pull(change.astype('float32'))), strict=True):
        assert_near(found, expected.astype(dtype), tolerance)


def test_members_are_each_computed(here):
    x, weights = draw(3, 2, 8, 8, 16), draw(3, 3, 3, 16, 20)
    together = jax.jit(jax.vmap(lambda x, w: convolve(x, w, (1, 1), 'SAME', few=True)))(x, weights)
    for member in range(3):
        assert_near(together[member], _plain((1, 1), 'SAME')(x[member], weights[member]), 1e-6)


def test_a_translators_gradients_do_not_depend_on_it(here, monkeypatch):
    generator, images, wanted = Generator(1, blocks=2), draw(1, 32, 32, 1), draw(1, 32, 32, 1)
    params = generator.init(jax.random.key(0), images)
    loss = lambda params, images: ((generator.apply(params, images) - wanted) ** 2).mean()
    program = lambda: jax.jit(lambda params, images: jax.value_and_grad(loss)(params, images))
    with_it = program()
    assert '__onednn$convolution' in with_it.lower(params, images).as_text()
    found = with_it(params, images)
    monkeypatch.setenv('FER_JAX_ONEDNN', '0')
    plain = program()
    assert '__onednn$' not in plain.lower(params, images).as_text()
    jax.tree.map(lambda a, b: assert_near(a, b, 2e-4), found, plain(params, images))


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize(('images', 'side', 'channels'), [(8, 8, 3), (40, 8, 12), (8, 9, 24)])
def test_a_pooled_layer_of_few_channels_and_its_gradients_do_not_depend_on_it(
    here, monkeypatch, images, side, channels, dtype
):
    if dtype not in onednn.types():
        pytest.skip('this processor has no bfloat16')
    whole = lambda *shape: jnp.round(3 * draw(*shape))  # whose sums are exact, so that the same numbers are equal
    layer = ConvPoolReLU(12, 3, dtype=dtype, few=True)
    variables = {'params': {'kernel': whole(3, 3, channels, 12), 'bias': whole(12)}}

    def with_gradients(variables, x, change):
        out, pull = jax.vjp(layer.apply, variables, x)
        return out, pull(change.astype(out.dtype))

    arrays = variables, whole(images, side, side, channels), whole(images, side // 2, side // 2, 12)
    with_it = jax.jit(with_gradients)
    assert '__onednn$convolution' in with_it.lower(*arrays).as_text()
    found = with_it(*arrays)
    monkeypatch.setenv('FER_JAX_ONEDNN', '0')
    plain = jax.jit(lambda *arrays: with_gradients(*arrays))
    assert '__onednn$' not in plain.lower(*arrays).as_text()
    near = lambda a, b: assert_near(a, b, 1e-6 if dtype == 'float32' else 1e-2)
    jax.tree.map(near, found, plain(*arrays))


@pytest.mark.parametrize(
    ('network', 'dtype', 'called'),
    [('resnet10', 'float32', False), ('resnet10', 'bfloat16', True), ('baseline_cnn', 'float32', True)],
)
def test_classifiers_of_many_channels_are_left_to_xla_in_float32_so_that_their_programs_are_kept(
    here, network, dtype, called
):
    if dtype not in onednn.types():
        pytest.skip('this processor has no bfloat16')
    model, images = create_model(network, 3, dtype), draw(4, 48, 48, 1)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    loss = lambda variables, images: model.apply(variables, images)[0].sum()
    text = jax.jit(jax.grad(loss)).lower(variables, images).as_text()
    assert ('__onednn$convolution' in text) == called


@pytest.mark.parametrize(
    ('of_x', 'of_kernel', 'says'),
    [
        (((2, 8, 8, 16), 'float32'), ((3, 3, 16, 16), 'bfloat16'), 'with a kernel of bfloat16'),
        (((2, 8, 8, 16), 'float32'), ((3, 3, 8, 16), 'float32'), 'with a kernel of float32'),
        (((2, 2, 8, 16), 'float32'), ((3, 3, 16, 16), 'float32'), 'leaves nothing'),
    ],
)
def test_what_would_end_the_process_is_refused(here, of_x, of_kernel, says):
    with pytest.raises(TypeError, match=says):
        onednn.convolve(draw(*of_x[0], dtype=of_x[1]), draw(*of_kernel[0], dtype=of_kernel[1]), ((0, 0), (0, 0)))


def test_no_images_give_no_numbers_and_no_gradient(here):
    x, weights = jnp.zeros((0, 8, 8, 16)), draw(3, 3, 16, 20)
    out, pull = jax.vjp(lambda x, w: convolve(x, w, (1, 1), 'SAME'), x, weights)
    assert out.shape == (0, 8, 8, 20) and not pull(out)[1].any()


@pytest.mark.parametrize('padding', [((-1, 0), (0, 2)), ((2, 1), (0, -2))])
@pytest.mark.parametrize(
    ('channels', 'kernel', 'strides'), [((16, 20), 1, (1, 1)), ((2, 20), 3, (1, 1)), ((16, 20), 3, (1, 2))]
)
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_borders_may_be_uneven_and_negative(here, dtype, channels, kernel, strides, padding):
    if dtype not in onednn.types():
        pytest.skip('this processor has no bfloat16')
    x, weights = draw(2, 8, 9, channels[0], dtype=dtype), draw(kernel, kernel, *channels, dtype=dtype)
    out, pull = jax.vjp(_plain(strides, padding), *(array.astype('float32') for array in (x, weights)))
    change = draw(*out.shape, dtype=dtype)
    ours, back = jax.vjp(lambda x, w: convolve(x, w, strides, padding, few=True), x, weights)
    for found, expected in zip((ours, *back(change)), (out, *pull(change.astype('float32'))), strict=True):
        assert_near(found, expected.astype(dtype), 1e-6 if dtype == 'float32' else 1e-2)


def test_it_is_not_called_where_told_not_to_and_on_several_devices(here, monkeypatch):
    x, weights = draw(2, 8, 8, 16), draw(3, 3, 16, 16)
    text = lambda: jax.jit(lambda x, w: convolve(x, w, (1, 1), 'SAME', few=True)).lower(x, weights).as_text()
    assert '__onednn$convolution' in text()
    with onednn.without():
        assert '__onednn$' not in text()
    monkeypatch.setenv('FER_JAX_ONEDNN', '0')
    assert '__onednn$' not in text()
    monkeypatch.setenv('FER_JAX_ONEDNN', '1')
    monkeypatch.setattr(jax, 'device_count', lambda: 2)
    assert '__onednn$' not in text()


def test_its_programs_are_not_written_to_jaxs_cache_and_others_are(here, tmp_path):
    script = """
import jax, jax.numpy as jnp
from fer_jax.models import onednn
x, kernel = jnp.ones((2, 8, 8, 16)), jnp.ones((3, 3, 16, 16))
for name, ways in (('by_onednn', contextlib.nullcontext), ('by_xla', onednn.without)):
    def made(x, kernel):
        from fer_jax.models.convolution import _ends, convolve
        return convolve(x, kernel, (1, 1), 'SAME', few=True).sum()
    made.__name__ = name
    with ways():
        print(float(jax.jit(made)(x, kernel)))
"""
    settings = {
        'JAX_PLATFORMS': 'cpu',
        'XLA_FLAGS': '',
        'FER_JAX_ONEDNN': '1',
        'JAX_COMPILATION_CACHE_DIR': str(tmp_path),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
    }
    done = subprocess.run(
        [sys.executable, '-c', 'import contextlib\n' + script],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert len(set(done.stdout.split())) == 1 and 'cache' not in done.stderr
    kept = ' '.join(path.name for path in tmp_path.iterdir())
    assert 'jit_by_xla' in kept and 'jit_by_onednn' not in kept


def test_a_onednn_that_is_held_back_is_not_called(here, monkeypatch):
    monkeypatch.setenv('ONEDNN_MAX_CPU_ISA', 'AVX2')
    assert onednn._types_here.__wrapped__() == ()
