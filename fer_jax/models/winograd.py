"""3x3 convolutions of stride 1 by Winograd's minimal filtering, F(2x2, 3x3): 16 products for 36 (Lavin & Gray 2016).

An output block of 2x2 pixels depends on 4x4 of the input. Both and the kernel are taken, by additions alone, to 16
numbers each, whose products are those of 16 matrices. Rounding is that of the plain sum (1e-6 of the largest number).

Shape letters: B images, H and W pixels, I and O input and output channels, N blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Grid = list[list[Array]]
_INPUT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))


def convolve_3x3(
    x_BHWI: Float[Array, 'B H W I'], kernel_33IO: Float[Array, '3 3 I O'], border: int = 1
) -> Float[Array, 'B H2 W2 O']:
    """The convolution with a border of so many zeros, 0 to 2: each side becomes 2 less twice the border shorter."""
    return _convolve(x_BHWI, _both_ways(_KERNEL, [list(row) for row in kernel_33IO]), border, by=0)


def gradient_by_input(
    kernel_33IO: Float[Array, '3 3 I O'], change_BHWO: Float[Array, 'B H2 W2 O'], border: int = 1
) -> Float[Array, 'B H W I']:
    """The gradient of `convolve_3x3` by its input: a convolution with the kernel turned by half a circle."""
    turned = [list(row[::-1]) for row in kernel_33IO[::-1]]
    return _convolve(change_BHWO, _both_ways(_KERNEL, turned), 2 - border, by=1)


def gradient_by_kernel(
    x_BHWI: Float[Array, 'B H W I'], change_BHWO: Float[Array, 'B H2 W2 O'], border: int = 1
) -> Float[Array, '3 3 I O']:
    """The gradient of `convolve_3x3` by its kernel: each step's transpose, from the output back."""
    change = _both_ways(_transposed(_OUTPUT), _blocks(change_BHWO, 2, 0))
    inputs = _both_ways(_INPUT, _blocks(x_BHWI, 4, border))
    products = [
        [_rows(i).T @ _rows(o) for i, o in zip(*rows, strict=True)] for rows in zip(inputs, change, strict=True)
    ]
    return jnp.stack([jnp.stack(row) for row in _both_ways(_transposed(_KERNEL), products)])


def _convolve(x_BHWI: Array, kernel: Grid, border: int, by: int) -> Array:
    """`by`: the kernel's axis that is summed over."""
    b, *sides, _ = x_BHWI.shape
    h, w = (side + 2 * border - 2 for side in sides)
    inputs = _both_ways(_INPUT, _blocks(x_BHWI, 4, border))
    product = lambda x, weights: jax.lax.dot_general(_rows(x), weights, (((1,), (by,)), ((), ())))
    outputs = [[product(*pair) for pair in zip(*rows, strict=True)] for rows in zip(inputs, kernel, strict=True)]
    pixels = jnp.stack([part for row in _both_ways(_OUTPUT, outputs) for part in row])
    pixels = pixels.reshape(2, 2, b, (h + 1) // 2, (w + 1) // 2, -1).transpose(2, 3, 0, 4, 1, 5)
    return pixels.reshape(b, h + h % 2, w + w % 2, -1)[:, :h, :w]


def _blocks(x_BHWC: Array, side: int, border: int) -> Grid:
    """At [y][x] pixel y, x of every block of so many pixels a side, which begin two pixels apart within the border."""
    b, h, w, c = x_BHWC.shape
    more = side // 2 - 1
    rows, columns = ((size + 2 * (border - more) + 1) // 2 for size in (h, w))
    ends = [(border, 2 * (count + more) - size - border) for count, size in ((rows, h), (columns, w))]
    x = jnp.pad(x_BHWC, ((0, 0), *ends, (0, 0))).reshape(b, rows + more, 2, columns + more, 2, c)
    part = lambda y, x_: x[:, y // 2 : y // 2 + rows, y % 2, x_ // 2 : x_ // 2 + columns, x_ % 2]
    return [[part(y, x_) for x_ in range(side)] for y in range(side)]


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _both_ways(matrix: Sequence[Sequence[float]], grid: Grid) -> Grid:
    """matrix @ grid @ matrix.T, where the grid's entries are arrays."""
    half = [_apply(matrix, column) for column in zip(*grid, strict=True)]
    return [_apply(matrix, row) for row in zip(*half, strict=True)]


def _apply(matrix: Sequence[Sequence[float]], arrays: Sequence[Array]) -> list[Array]:
    return [
        sum(factor * array for factor, array in zip(row, arrays, strict=True) if factor)  # XLA drops factors of 1
        for row in matrix
    ]


def _transposed(matrix: Sequence[Sequence[float]]) -> Sequence[Sequence[float]]:
    return tuple(zip(*matrix, strict=True))
