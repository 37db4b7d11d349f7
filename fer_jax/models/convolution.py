"""2-D convolutions whose gradients are quick on a CPU.

Shape letters: B images, H and W pixels, I and O input and output channels, K side of the kernel.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from functools import partial, wraps
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.models import onednn, winograd
from fer_jax.models.fusion import turn, turn_by_pixel

_AXES = ('NHWC', 'HWIO', 'NHWC')
# Channels from which blocks with several columns are quicker than those of one, 3x3, and their gradient by kernel.
_WINOGRAD, _WINOGRAD_KERNEL = 128, 192
_PIXELS = 256  # of all images given at once, from which fewer products pay: a kernel's many numbers are used enough
_ROWS = (4, 1)  # blocks of one column
_IN_ROWS = {3: 48, 5: 16}  # channels from which blocks of one column are quicker than none, by the kernel's side
_CACHED = 1 << 20  # numbers of a map: so many images at once stay in the cache from one step of theirs to the next
_HELD = 1 << 22  # the same of blocks with several columns, mostly products of matrices, which want many images
# A gradient by kernel sums over images, which are its convolution's channels: 16 images of 56x56x48 (3x3) took 47 ms
# with 8 images a part, 56 with 4, 136 with 1. Maps of more numbers an image are left to the plain way.
SUMMED, _LARGE = 8, 1 << 18
# Plain gradients by a kernel where oneDNN has them (two cores with AVX-512): in bfloat16 14 ms of XLA's 31 (48
# channels, 24x24, 3x3), in float32 42 of 35, but of one image 1.1 of 3.9 (64 to 128, 64x64, stride 2). It does not
# suit one channel: 2.0 of 1.3. Forwards it does from fewer: 7.5 ms of 24 to 61 for 3 to 12 (224x224, 32 images).
_FEW, _SOME, _FEW_OUT = 4200, 16, 8
_MANY = 32  # images from which turned arrays pay where oneDNN has the rest
# Under the kernel of a first layer: 10 ms of 32 for the gradient by one of 3x3x4x128 at 24x24 (128 images), 14 of 68
# with 256 channels, 3.3 of 5.6 with 48, 17 of 33 for 5x5x1x32 at 48x48.
_NUMBERS, _PATCHES = 40, 1 << 23  # of one pixel and of all
Pads = tuple[tuple[int, int], ...]
_as_written = contextvars.ContextVar('as_written', default=False)


@contextlib.contextmanager
def as_written() -> Iterator[None]:
    """Networks traced within are plain convolutions and maxima: for other machines, and to count their work."""
    token = _as_written.set(True)
    try:
        yield
    finally:
        _as_written.reset(token)


def rearranged() -> bool:
    """Whether layers are computed in the ways that are quick on a CPU."""
    return jax.default_backend() == 'cpu' and not _as_written.get()


def alone() -> bool:
    """Whether one CPU has the whole batch, so that sums over it may be cut as it suits."""
    return rearranged() and jax.device_count() == 1


def convolve(
    x_BHWI: Float[Array, 'B H W I'],
    kernel_KKIO: Float[Array, 'K K I O'],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    few: bool = False,
    **_: Any,
) -> Float[Array, 'B H W O']:
    """A convolution without dilation and groups; what `nn.Conv` takes as `conv_general_dilated`.

    Args:
        few: of few images or channels, see `by_onednn`; fewer than 32 images do not pay for turned arrays.
    """
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x_BHWI.shape[1:3], kernel_KKIO.shape[:2], strides, padding)
    how = tuple(strides), tuple(map(tuple, padding))
    if rearranged() and (not few or by_onednn(x_BHWI, few) or _all_fewer(x_BHWI, kernel_KKIO, *how)):
        return convolve_on_cpu(x_BHWI, kernel_KKIO, *how, few)
    return _convolve(x_BHWI, kernel_KKIO, *how)


def by_onednn(x_BHWI: Array, few: bool) -> bool:
    """Whether oneDNN computes what is not computed by fewer products.

    In float32 it is left to convolutions of few images or channels: two cores with AVX-512 made a step of translators
    in .75 to .94 of the time, of the baseline network in .78 to .86, of other classifiers in .90 to 1.06, which does
    not pay for programs that are compiled anew at every start.
    """
    known = x_BHWI.dtype.name in onednn.types() and isinstance(x_BHWI.shape[0], int) and x_BHWI.size > 0
    return known and (few or x_BHWI.dtype != jnp.float32)


def _all_fewer(x_BHWI: Array, kernel_KKIO: Array, strides: tuple[int, ...], padding: Pads) -> bool:
    """Whether convolution and both gradients go by blocks with several columns."""
    return _suits(x_BHWI, kernel_KKIO, strides, padding) and _is_wide(kernel_KKIO, _WINOGRAD_KERNEL)


def _convolve(x_BHWI: Array, kernel_KKIO: Array, strides: tuple[int, ...], padding: Pads) -> Array:
    return jax.lax.conv_general_dilated(x_BHWI, kernel_KKIO, strides, padding, dimension_numbers=_AXES)


def _traced_once(*static: int) -> Callable[[Callable], Callable]:
    """Layers of the same shapes share what was traced of the first, and the function it became in their program.

    ResNet18's step was traced in 1 s instead of 4 to 6, and its text is 1.1 MB instead of 3.7.

    Args:
        static: places of the arguments that are no arrays.
    """

    def wrap(function: Callable) -> Callable:
        here = lambda _, *given: function(*given)
        here.__name__ = function.__name__
        traced = jax.jit(here, static_argnums=(0, *(number + 1 for number in static)))
        decisive = lambda: (alone(), onednn.types(), _CACHED, _HELD)
        return wraps(function)(lambda *given: traced(decisive(), *given))

    return wrap


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
@_traced_once(2, 3, 4)
def convolve_on_cpu(x_BHWI: Array, kernel_KKIO: Array, strides: tuple[int, ...], padding: Pads, few: bool) -> Array:
    """`convolve`, by the way that is quick for it."""
    block = _block(x_BHWI, kernel_KKIO, strides, padding, _rows_out(x_BHWI, kernel_KKIO, padding))
    if block:
        convolve = lambda x_BHWI: winograd.convolve(x_BHWI, kernel_KKIO, padding, block)
        return in_parts(lambda x: (convolve(x), ()), count_parts(x_BHWI, kernel_KKIO, block=block), x_BHWI)[0]
    if by_onednn(x_BHWI, few) and kernel_KKIO.shape[-1] >= _FEW_OUT:
        return onednn.convolve(x_BHWI, kernel_KKIO, padding, strides)
    return _convolve(x_BHWI, kernel_KKIO, strides, padding)


def rows_apart(x_BHWI: Array, kernel_KKIO: Array, padding: Pads) -> list[Array] | None:
    """Rows 0, 4, 8 … of a convolution of stride 1, rows 1, 5, 9 …, and so on; None where it is not computed so."""
    rows = _rows_out(x_BHWI, kernel_KKIO, padding)
    if rows % _ROWS[0] or _block(x_BHWI, kernel_KKIO, (1, 1), padding, rows) != _ROWS:
        return None
    return winograd.rows_of_blocks(x_BHWI, kernel_KKIO, padding, _ROWS[0])


def _block(
    x_BHWI: Array, kernel_KKIO: Array, strides: tuple[int, ...], padding: Pads, rows: int
) -> tuple[int, int] | None:
    """Of Winograd's way, for so many rows of output or of the gradient by the input; None: others are quicker."""
    if not _suits(x_BHWI, kernel_KKIO, strides, padding):
        return None
    if _is_wide(kernel_KKIO, _WINOGRAD):
        return _wide_block(rows)
    return _ROWS if goes_in_rows(kernel_KKIO) else None


def _block_by_kernel(
    x_BHWI: Array, kernel_KKIO: Array, strides: tuple[int, ...], padding: Pads, rows: int, few: bool
) -> tuple[int, int] | None:
    """The same for the gradient by the kernel, from so many rows of the output's."""
    if not _suits(x_BHWI, kernel_KKIO, strides, padding):
        return None
    if _is_wide(kernel_KKIO, _WINOGRAD_KERNEL):
        return _wide_block(rows)
    sums = x_BHWI.shape[0] >= SUMMED and _numbers(x_BHWI, kernel_KKIO) <= _LARGE
    return _ROWS if sums and not few and goes_in_rows(kernel_KKIO) else None


def _wide_block(rows: int) -> tuple[int, int]:
    return (2, 2) if rows % 4 else (4, 2)


def _rows_out(x_BHWI: Array, kernel_KKIO: Array, padding: Pads) -> int:
    return x_BHWI.shape[1] + sum(padding[0]) - len(kernel_KKIO) + 1


def _suits(x_BHWI: Array, kernel_KKIO: Array, strides: tuple[int, ...], padding: Pads) -> bool:
    """Whether Winograd's way suits this convolution, if it has channels enough."""
    side = len(kernel_KKIO)
    inside = all(0 <= end < side for ends in padding for end in ends)
    known = side == kernel_KKIO.shape[1] and side in _IN_ROWS and kernel_KKIO.dtype == jnp.float32
    return known and strides == (1, 1) and inside and _pixels(x_BHWI) >= _PIXELS


def _is_wide(kernel_KKIO: Array, channels: int) -> bool:
    return len(kernel_KKIO) == 3 and min(kernel_KKIO.shape[2:]) >= channels


def _pixels(x_BHWC: Array) -> int:
    """Of all images; of one where there may be any number, to be exported."""
    b, h, w, _ = x_BHWC.shape
    return (b if isinstance(b, int) else 1) * h * w


def goes_in_rows(kernel_KKIO: Array) -> bool:
    """Whether blocks of one column pay for a convolution of stride 1: by its channels, where one device has all."""
    least = _IN_ROWS.get(len(kernel_KKIO))
    wide = least is not None and min(kernel_KKIO.shape[2:]) >= least
    return alone() and kernel_KKIO.dtype == jnp.float32 and wide


def in_parts(function: Callable[..., tuple[Any, Any]], parts: int, *arrays: Array) -> tuple[Any, Any]:
    """`function` of a part of the images after the other: its first result of all images, and its second's sum."""
    if parts == 1:
        return function(*arrays)
    function = jax.jit(function)  # traced once for both uses below
    cut = [array.reshape(parts, -1, *array.shape[1:]) for array in arrays]
    _, like = jax.eval_shape(function, *(jax.ShapeDtypeStruct(array.shape[1:], array.dtype) for array in cut))

    def add(total: Any, part: list[Array]) -> tuple[Any, Any]:
        of_images, more = function(*part)
        return jax.tree.map(jnp.add, total, more), of_images

    zeros = jax.tree.map(lambda array: jnp.zeros(array.shape, jnp.promote_types(array.dtype, jnp.float32)), like)
    total, of_images = jax.lax.scan(add, zeros, cut)
    total = jax.tree.map(lambda array, like: array.astype(like.dtype), total, like)
    return jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), of_images), total


def count_parts(x_BHWC: Array, kernel_KKIO: Array, images: int = 1, block: tuple[int, int] = _ROWS) -> int:
    """Into how many parts, of so many images at least, memory near enough holds one of which; 1 on several devices."""
    held = _CACHED if block == _ROWS else _HELD
    b = x_BHWC.shape[0]
    if not alone() or not isinstance(b, int):  # of any number, to be exported
        return 1
    least = -(-b * _numbers(x_BHWC, kernel_KKIO) // held)
    most = max(1, b // images)
    equal = (parts for parts in range(max(1, min(least, most)), min(most, 4 * least) + 1) if b % parts == 0)
    return next(equal, 1)


def _numbers(x_BHWC: Array, kernel_KKIO: Array) -> int:
    """Of one image, in the larger of input and output."""
    return x_BHWC.shape[1] * x_BHWC.shape[2] * max(kernel_KKIO.shape[2:])


def _forward(
    x_BHWI: Array, kernel_KKIO: Array, strides: tuple[int, ...], padding: Pads, few: bool
) -> tuple[Array, Any]:
    return convolve_on_cpu(x_BHWI, kernel_KKIO, strides, padding, few), (x_BHWI, kernel_KKIO)


@_traced_once(0, 1, 2)
def gradients(
    strides: tuple[int, ...], padding: Pads, few: bool, saved: tuple[Array, Array], change_BHWO: Array
) -> tuple[Array, Array]:
    """Of `convolve_on_cpu`, by its input and by its kernel, each by the way that is quick for it.

    Args:
        saved: input and kernel.
    """
    x_BHWI, kernel_KKIO = saved
    how = strides, padding
    block = _block(x_BHWI, kernel_KKIO, *how, x_BHWI.shape[1])
    if block:
        pull = lambda change_BHWO: winograd.gradient_by_input(kernel_KKIO, change_BHWO, padding, block)
        parts = count_parts(change_BHWO, kernel_KKIO, block=block)
        by_input = in_parts(lambda change: (pull(change), ()), parts, change_BHWO)[0]
    elif by_onednn(x_BHWI, few) and (strides == (1, 1) or x_BHWI.dtype == jnp.bfloat16 and min(padding)[0] >= 0):
        by_input = onednn.gradient_by_input(kernel_KKIO, change_BHWO, x_BHWI.shape, padding, strides)
    else:
        by_input = _gradient_by_input(x_BHWI, kernel_KKIO, change_BHWO, *how)
    block = _block_by_kernel(x_BHWI, kernel_KKIO, *how, change_BHWO.shape[1], few)
    if block:
        by_kernel = _gradient_by_kernel_in_parts(x_BHWI, kernel_KKIO, change_BHWO, padding, block)
    elif _few_numbers(kernel_KKIO, change_BHWO):
        by_kernel = _product_of_patches(x_BHWI, kernel_KKIO, change_BHWO, *how, few)
    elif _kernel_by_onednn(x_BHWI, kernel_KKIO, few):
        images, change = turn_by_pixel(x_BHWI), turn(change_BHWO, (1, 2, 0, 3))
        by_kernel = onednn.gradient_by_kernel(images, change, _ends(x_BHWI, kernel_KKIO, change_BHWO, *how), strides)
    elif few and len(x_BHWI) < _MANY:
        (by_kernel,) = jax.linear_transpose(lambda kernel: _convolve(x_BHWI, kernel, *how), kernel_KKIO)(change_BHWO)
    else:
        by_kernel = _gradient_by_kernel(x_BHWI, kernel_KKIO, change_BHWO, *how)
    return by_input, by_kernel


def _gradient_by_input(
    x_BHWI: Array, kernel_KKIO: Array, change_BHWO: Array, strides: tuple[int, ...], padding: Pads
) -> Array:
    if strides != (1, 1):
        (by_input,) = jax.linear_transpose(lambda x: _convolve(x, kernel_KKIO, strides, padding), x_BHWI)(change_BHWO)
        return by_input
    # Written out, since XLA turns the kernel to the order it has quick convolutions for only outside of loops.
    around = [(side - 1 - low, side - 1 - high) for side, (low, high) in zip(kernel_KKIO.shape, padding, strict=False)]
    kernel_KKOI = turn(kernel_KKIO, (0, 1, 3, 2)) if alone() else kernel_KKIO.swapaxes(2, 3)
    return _convolve(change_BHWO, kernel_KKOI[::-1, ::-1], strides, tuple(around))


def _gradient_by_kernel_in_parts(
    x_BHWI: Array, kernel_KKIO: Array, change_BHWO: Array, padding: Pads, block: tuple[int, int]
) -> Array:
    """Winograd's way."""

    def of_part(x_BHWI: Array, change_BHWO: Array) -> tuple[tuple[()], Array]:
        return (), winograd.gradient_by_kernel(x_BHWI, change_BHWO, len(kernel_KKIO), padding, block)

    return in_parts(of_part, count_parts(x_BHWI, kernel_KKIO, SUMMED, block), x_BHWI, change_BHWO)[1]


def _few_numbers(kernel_KKIO: Array, change_BHWO: Array) -> bool:
    """Whether what lies under a kernel, pixel for pixel, is no large array, and one device has it."""
    numbers = kernel_KKIO.size // kernel_KKIO.shape[-1]
    few = numbers <= _NUMBERS and numbers * _pixels(change_BHWO) <= _PATCHES
    return alone() and (few or kernel_KKIO.shape[:2] == (1, 1))


def _product_of_patches(
    x_BHWI: Array, kernel_KKIO: Array, change_BHWO: Array, strides: tuple[int, ...], padding: Pads, few: bool
) -> Array:
    """The gradient by the kernel as one product: of all that lay under it, and the output's gradient."""
    change = change_BHWO.reshape(-1, change_BHWO.shape[-1])
    rows = _patches(x_BHWI, kernel_KKIO.shape[:2], strides, padding, few)
    rows = rows.reshape(len(change), kernel_KKIO.size // kernel_KKIO.shape[-1])
    known = by_onednn(x_BHWI, few)
    product = onednn.product(rows, change) if known else jax.lax.dot_general(rows, change, (((0,), (0,)), ((), ())))
    return product.reshape(kernel_KKIO.shape)


def _patches(x_BHWI: Array, sides: tuple[int, int], strides: tuple[int, ...], padding: Pads, few: bool) -> Array:
    """At each place of a kernel all the numbers under it: by row, column and channel."""
    numbers = sides[0] * sides[1] * x_BHWI.shape[-1]
    if by_onednn(x_BHWI, few) and sides != (1, 1):
        # 128 images of 24x24x4 in bfloat16, 3x3: .9 ms of 5.2 for slices put together.
        taken = jnp.eye(numbers, dtype=x_BHWI.dtype).reshape(*sides, x_BHWI.shape[-1], numbers)
        return onednn.convolve(x_BHWI, taken, padding, strides)
    edges = [(low, high, 0) for low, high in ((0, 0), *padding, (0, 0))]
    x_BHWI = jax.lax.pad(x_BHWI, jnp.zeros((), x_BHWI.dtype), edges)
    h, w = (1 + (size - side) // stride for size, side, stride in zip(x_BHWI.shape[1:3], sides, strides, strict=True))
    under = [
        [
            x_BHWI[:, y : y + (h - 1) * strides[0] + 1 : strides[0], x : x + (w - 1) * strides[1] + 1 : strides[1]]
            for x in range(sides[1])
        ]
        for y in range(sides[0])
    ]
    # Row by row: 13 ms of all at once take 8 (48x48x1, 5x5).
    return jnp.stack([jnp.concatenate(row, -1) for row in under], 3)


def _kernel_by_onednn(x_BHWI: Array, kernel_KKIO: Array, few: bool) -> bool:
    if not by_onednn(x_BHWI, few) or min(kernel_KKIO.shape[2:]) < _SOME:
        return False
    return _pixels(x_BHWI) <= _FEW or x_BHWI.dtype == jnp.bfloat16


def _ends(
    x_BHWI: Array, kernel_KKIO: Array, change_BHWO: Array, strides: tuple[int, ...], padding: Pads
) -> list[tuple[int, int]]:
    """Zeros around the images for the output's gradient to run over them, spread by the strides, K times K times."""
    return [
        (low, kernel + (out - 1) * stride - size - low)
        for kernel, out, stride, size, (low, _) in zip(
            kernel_KKIO.shape, change_BHWO.shape[1:3], strides, x_BHWI.shape[1:3], padding, strict=False
        )
    ]


def _gradient_by_kernel(
    x_BHWI: Array, kernel_KKIO: Array, change_BHWO: Array, strides: tuple[int, ...], padding: Pads
) -> Array:
    """A convolution over images as large as its kernel, the output's gradient, which runs over them K times K times."""
    ends = _ends(x_BHWI, kernel_KKIO, change_BHWO, strides, padding)
    # In two stages where `apart` keeps them apart.
    images = turn(turn_by_pixel(x_BHWI), (2, 0, 1, 3)) if alone() else turn(x_BHWI, (3, 1, 2, 0))
    kernel = turn(change_BHWO, (1, 2, 0, 3))
    by_kernel_IKKO = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), ends, rhs_dilation=strides, dimension_numbers=_AXES
    )
    return by_kernel_IKKO.transpose(1, 2, 0, 3)


convolve_on_cpu.defvjp(_forward, gradients)
