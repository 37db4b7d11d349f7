"""Layers written out for CPUs against XLA's own: same values, same gradients."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.models import convolution, norms, pooling, winograd
from fer_jax.models.convolution import as_written, convolve
from fer_jax.models.fusion import for_each_member
from fer_jax.models.pooling import convolve_and_pool, largest
from tests.models.near import draw


def _with_gradients(function, *arrays):
    """The output and, for weights that differ everywhere, the gradients by all arrays."""
    output, pull = jax.vjp(function, *arrays)
    return output, *pull(draw(*output.shape))


def _let_one_device_have_all(monkeypatch, in_parts):
    for module in (convolution, norms, pooling):
        monkeypatch.setattr(module, 'alone', lambda: True)
    monkeypatch.setattr(convolution, '_CACHED', 1500 if in_parts else 1 << 20)
    monkeypatch.setattr(convolution, '_HELD', 80000 if in_parts else 1 << 22)


def assert_agree(ours, theirs, tolerance):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * float(jnp.abs(b).max()), rtol=0)


@pytest.mark.parametrize(
    ('side', 'kernel', 'stride', 'padding'),
    [(8, 3, 1, 1), (8, 3, 2, 1), (9, 3, 2, 1), (8, 1, 2, 'SAME'), (7, 1, 2, 'SAME'), (7, 5, 1, 2), (7, 3, 1, 'VALID')],
)
def test_convolution_and_its_gradients_are_xlas(side, kernel, stride, padding):
    x, weights = draw(4, side, side + 2, 5), draw(kernel, kernel, 5, 7)
    pads = [(padding, padding)] * 2 if isinstance(padding, int) else padding
    ours = jax.jit(lambda *arrays: _with_gradients(lambda x, w: convolve(x, w, (stride, stride), pads), *arrays))
    axes = ('NHWC', 'HWIO', 'NHWC')
    plain = lambda x, w: jax.lax.conv_general_dilated(x, w, (stride, stride), pads, dimension_numbers=axes)
    assert_agree(ours(x, weights), _with_gradients(plain, x, weights), 1e-6)


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
@pytest.mark.parametrize('side', [6, 7])
@pytest.mark.parametrize('in_parts', [False, True])
def test_convolution_by_fewer_products_and_its_gradients_are_xlas(side, padding, in_parts, monkeypatch):
    _let_one_device_have_all(monkeypatch, in_parts)
    x, weights = draw(16, side, side + 3, 192), draw(3, 3, 192, 200)
    ours = jax.jit(lambda *arrays: _with_gradients(lambda x, w: convolve(x, w, (1, 1), padding), *arrays))
    program = ours.lower(x, weights).as_text()
    assert 'stablehlo.convolution' not in program and ('stablehlo.while' in program) == in_parts
    plain = lambda x, w: jax.lax.conv_general_dilated(x, w, (1, 1), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    with as_written():
        assert (
            'stablehlo.convolution' in jax.jit(lambda x, w: convolve(x, w, (1, 1), padding)).lower(x, weights).as_text()
        )
    assert_agree(ours(x, weights), _with_gradients(plain, x, weights), 2e-6)


@pytest.mark.parametrize(
    ('images', 'channels', 'fewer'), [(4, 192, True), (3, 192, False), (4, 128, False), (16, 64, False)]
)
def test_of_few_images_and_channels_the_plain_convolution_is_taken(images, channels, fewer):
    x, weights = draw(images, 8, 8, channels), draw(3, 3, channels, channels)
    program = jax.jit(lambda x, w: convolve(x, w, (1, 1), 'VALID', few=True)).lower(x, weights).as_text()
    assert ('stablehlo.convolution' not in program) == fewer


@pytest.mark.parametrize(('kernel', 'channels'), [(5, 16), (3, 48)])
@pytest.mark.parametrize('padding', ['SAME', 'VALID', ((0, 2), (1, 2))])
@pytest.mark.parametrize('side', [7, 8])
@pytest.mark.parametrize('in_parts', [False, True])
def test_convolution_by_fewer_rows_and_its_gradients_are_xlas(kernel, channels, padding, side, in_parts, monkeypatch):
    _let_one_device_have_all(monkeypatch, in_parts)
    x, weights = draw(12, side, side + 3, channels), draw(kernel, kernel, channels, channels + 4)
    ours = jax.jit(lambda *arrays: _with_gradients(lambda x, w: convolve(x, w, (1, 1), padding), *arrays))
    program = ours.lower(x, weights).as_text()
    assert f'tensor<1x{kernel}x{channels}x{channels + 4}xf32>' in program
    assert ('stablehlo.while' in program) == in_parts
    axes = ('NHWC', 'HWIO', 'NHWC')
    plain = lambda x, w: jax.lax.conv_general_dilated(x, w, (1, 1), padding, dimension_numbers=axes)
    assert_agree(ours(x, weights), _with_gradients(plain, x, weights), 5e-6)


@pytest.mark.parametrize(
    ('blocked', 'rows', 'channels', 'kernel', 'outputs'),
    [
        (False, 8, 20, 5, 32),  # rows of blocks that are compared apart
        (False, 10, 20, 5, 32),  # the last block reaches too far
        (False, 8, 6, 3, 32),
        (True, 8, 4, 3, 32),
        (True, 8, 4, 3, 128),
    ],
)
@pytest.mark.parametrize('in_parts', [False, True])
def test_convolution_and_pool_in_one_are_both_in_turn(blocked, rows, channels, kernel, outputs, in_parts, monkeypatch):
    _let_one_device_have_all(monkeypatch, in_parts)
    images, columns, apart = 24, 6, []
    if in_parts:  # of six images, which have pixels enough for fewer products
        monkeypatch.setattr(convolution, '_CACHED', 6 * rows * columns * max(channels, outputs))
    rows_apart = lambda *given: apart.append(convolution.rows_apart(*given)) or apart[-1]
    monkeypatch.setattr(pooling, 'rows_apart', rows_apart)
    # Whole numbers, of which no two are equal but for rounding.
    x, weights = (
        jnp.round(50 * draw(*shape))
        for shape in ((images, rows, columns, channels), (kernel, kernel, channels, outputs))
    )
    pads = [(kernel // 2, kernel // 2)] * 2

    def pooled(x, w):
        out = jax.lax.conv_general_dilated(x, w, (1, 1), pads, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
        if blocked:
            return out.reshape(images, rows, columns, 4, -1).max(3)
        return out.reshape(images, rows // 2, 2, columns // 2, 2, outputs).max((2, 4))

    bias = jnp.round(50 * draw(outputs // 4 if blocked else outputs)) + 0.5
    bias -= np.floor(np.median(pooled(x, weights)))  # so that ReLU stops half of them
    in_turn = lambda x, w, b: jax.nn.relu(pooled(x, w) + b)
    ours = jax.jit(lambda *a: _with_gradients(lambda x, w, b: convolve_and_pool(x, w, b, pads, blocked), *a))
    assert ('stablehlo.while' in ours.lower(x, weights, bias).as_text()) == in_parts
    assert bool(apart and apart[0]) == (not blocked and rows % 4 == 0 and channels >= 16)
    assert_agree(ours(x, weights, bias), _with_gradients(in_turn, x, weights, bias), 5e-6)


@pytest.mark.parametrize('in_parts', [False, True])
def test_a_pooled_convolutions_gradients_have_the_types_of_its_arrays(in_parts, monkeypatch):
    _let_one_device_have_all(monkeypatch, in_parts)
    arrays = [jnp.asarray(array, jnp.bfloat16) for array in (draw(6, 8, 6, 4), draw(3, 3, 4, 32), draw(32))]
    layer = lambda *arrays: convolve_and_pool(*arrays, [(1, 1), (1, 1)], blocked=False)
    out, pull = jax.vjp(layer, *arrays)
    found = pull(jnp.ones_like(out))
    assert [gradient.dtype for gradient in found] == [jnp.bfloat16] * 3
    expected = (out > 0).sum((0, 1, 2))  # ones where ReLU lets them through
    np.testing.assert_array_equal(found[2], expected.astype(jnp.bfloat16))


def test_elsewhere_a_convolution_and_its_pool_are_what_is_written():
    pooled = lambda x, w: convolve_and_pool(x, w, jnp.zeros(16), [(2, 2), (2, 2)], blocked=False).sum()
    gradient = lambda: jax.jit(jax.grad(pooled, (0, 1))).lower(draw(2, 8, 8, 16), draw(5, 5, 16, 16)).as_text()
    assert 'stablehlo.case' in gradient()
    with as_written():
        assert 'stablehlo.case' not in gradient()


def test_no_kernel_within_a_loop_has_an_order_that_xla_has_no_quick_convolution_for(monkeypatch):
    _let_one_device_have_all(monkeypatch, in_parts=True)
    loss = lambda x, w: convolve_and_pool(x, w, jnp.zeros(24), [(1, 1), (1, 1)], blocked=False).sum()
    arguments = draw(16, 8, 8, 24), draw(3, 3, 24, 24)
    program = jax.jit(jax.grad(loss, (0, 1))).lower(*arguments).compile().as_text()
    assert 'while(' in program and 'b01f_01io' in program and '01oi' not in program


@pytest.mark.parametrize(('images', 'side', 'in_rows'), [(16, 56, True), (16, 112, False), (4, 8, False)])
def test_gradient_by_kernel_of_large_maps_or_few_images_is_a_plain_convolution(images, side, in_rows, monkeypatch):
    monkeypatch.setattr(convolution, 'alone', lambda: True)
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((images, side, side, 64), (3, 3, 64, 64))]
    by_kernel = jax.grad(lambda w, x: convolve(x, w, (1, 1), 'SAME').sum())
    program = jax.jit(lambda x, w: by_kernel(w, x)).lower(*shapes).as_text()
    assert (f'tensor<64x{side // 4}x{side}x' in program) == in_rows


@pytest.mark.parametrize('one_device', [False, True])
@pytest.mark.parametrize('pooled', [False, True])
@pytest.mark.parametrize(('channels', 'kernel'), [(16, 5), (192, 3), (4, 3), (16, 1)])
def test_no_images_give_no_numbers(pooled, channels, kernel, one_device, monkeypatch):
    if one_device:
        monkeypatch.setattr(jax, 'device_count', lambda: 1)
    x, weights = draw(0, 8, 8, channels), draw(kernel, kernel, channels, channels)
    pads = [(kernel // 2, kernel // 2)] * 2
    pool = lambda x, w, bias: convolve_and_pool(x, w, bias, pads, False)
    run = pool if pooled else lambda x, w, _: convolve(x, w, (1, 1), pads)
    out, by_input, *others = jax.jit(lambda *a: _with_gradients(run, *a))(x, weights, jnp.ones(channels))
    assert out.shape[0] == 0 and by_input.shape == x.shape
    assert not any(gradient.any() for gradient in others)


def test_images_of_several_devices_or_in_no_equal_parts_are_not_cut(monkeypatch):
    _let_one_device_have_all(monkeypatch, in_parts=True)
    monkeypatch.setattr(convolution, '_CACHED', 8000)
    program = lambda images: (
        jax.jit(lambda x, w: convolve(x, w, (1, 1), 'SAME')).lower(draw(images, 8, 8, 16), draw(5, 5, 16, 16)).as_text()
    )
    assert 'stablehlo.while' in program(8)
    assert 'stablehlo.while' not in program(23)
    monkeypatch.setattr(convolution, 'alone', lambda: False)
    assert 'stablehlo.while' not in program(8)


def test_layers_of_the_same_shapes_are_one_function_of_their_program(monkeypatch):
    _let_one_device_have_all(monkeypatch, in_parts=False)
    layer = lambda x, kernel: convolve(x, kernel, (1, 1), 'SAME')
    layers = lambda x, first, second: jnp.square(layer(layer(x, first), second)).sum()
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((4, 8, 8, 48), *[(3, 3, 48, 48)] * 2)]
    text = jax.jit(jax.grad(layers, (0, 1, 2))).lower(*shapes).as_text()
    for function in ('convolve_on_cpu', 'gradients'):
        assert len(re.findall(rf'func.func private @{function}\w*\(', text)) == 1
        assert len(re.findall(rf'call @{function}\w*\(', text)) == 2


@pytest.mark.parametrize(('outputs', 'side'), [(2, 3), (4, 3), (2, 5), (4, 5)])
def test_minimal_filters_are_exact(outputs, side):
    of_input, of_kernel, of_output = (np.array(matrix) for matrix in winograd._matrices(outputs, side))
    assert of_input.shape == (outputs + side - 1,) * 2
    random = np.random.default_rng(0)
    numbers, kernel = random.normal(size=outputs + side - 1), random.normal(size=side)
    filtered = of_output @ ((of_kernel @ kernel) * (of_input @ numbers))
    np.testing.assert_allclose(filtered, np.correlate(numbers, kernel, 'valid'), rtol=1e-12)


def test_the_smallest_filter_is_the_published_one_but_for_signs():
    # Lavin & Gray 2016, F(2, 3).
    of_input = [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]
    of_kernel = [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]
    for ours, published in zip(winograd._matrices(2, 3), (of_input, of_kernel), strict=False):
        np.testing.assert_array_equal(np.abs(ours), np.abs(published))


def test_convolutions_of_several_members_are_each_ones():
    x, weights = draw(3, 4, 8, 8, 5), draw(3, 3, 3, 5, 7)
    both = lambda x, w: _with_gradients(lambda x, w: convolve(x, w, (1, 1), 'SAME'), x, w)
    together = jax.jit(jax.vmap(both))(x, weights)
    for member in range(3):
        assert_agree([part[member] for part in together], both(x[member], weights[member]), 1e-6)


@pytest.mark.parametrize('members', [1, 3])
def test_each_member_is_given_its_own_variables(members):
    variables = {'a': jnp.arange(2.0 * members).reshape(members, 2), 'b': jnp.arange(10, 10 + members)}
    found = jax.jit(lambda variables: for_each_member(lambda one: (one['a'] * 2, one['b']), variables))(variables)
    for given, expected in zip(found, (variables['a'] * 2, variables['b']), strict=True):
        np.testing.assert_array_equal(given, expected)


@pytest.mark.parametrize(('shape', 'axes'), [((3, 4, 2, 5, 2, 6), (2, 4)), ((3, 4, 5, 4, 6), (3,))])
def test_largest_is_the_maximum_with_its_gradient(shape, axes):
    x = draw(*shape)
    assert_agree(
        jax.jit(lambda x: _with_gradients(lambda x: largest(x, axes), x))(x),
        _with_gradients(lambda x: jnp.max(x, axes), x),
        0,
    )


def test_of_equal_numbers_the_first_has_the_gradient():
    x = jnp.array([[1.0, 3.0, 3.0, 3.0], [2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 1.0, 1.0]])
    gradient = jax.grad(lambda x: (largest(x, (1,)) * jnp.array([5.0, 6.0, 7.0])).sum())(x)
    np.testing.assert_array_equal(gradient, [[0, 5, 0, 0], [6, 0, 0, 0], [0, 0, 7, 0]])
