"""Convolutions of stride 1 by fewer products: minimal filtering (Winograd 1980; Lavin & Gray 2016).

M neighbouring outputs of a convolution by K numbers depend on M + K - 1 inputs. Both and the kernel are taken, by a few
additions, to as many numbers each, whose products are all that is needed: M + K - 1 instead of M K. So a block of 2x2
outputs of a 3x3 kernel takes 16 products for 36, and one of 4x1 of a 5x5 kernel, along whose rows there is an ordinary
convolution, 40 for 100. Larger blocks round more: of the largest output 5e-7 (2x2 of 3x3), 1e-6 (4x1 and 4x2 of 3x3)
and 2e-6 (4x1 of 5x5), where plain sums have 3e-7 and PyTorch's up to 1e-6.

Shape letters: B images, H and W pixels, I and O input and output channels, K side of the kernel.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fer_jax.models.fusion import apart, turn_by_pixel

Grid = list[list[Array]]
Matrix = Sequence[Sequence[float]]
Padding = Sequence[tuple[int, int]]
Block = tuple[int, int]
_POINTS = (0.0, 1.0, -1.0, 2.0, -0.5, -2.0, 0.5)  # where polynomials are compared: in an order that rounds little


def convolve(
    x_BHWI: Float[Array, 'B H W I'], kernel_KKIO: Float[Array, 'K K I O'], padding: Padding, block: Block
) -> Float[Array, 'B H2 W2 O']:
    """The convolution.

    Args:
        padding: zeros before and after rows and columns, fewer than K each.
        block: rows and columns of outputs that are made together; (M, 1) for ordinary convolutions along rows.
    """
    return _convolve(x_BHWI, kernel_KKIO, padding, block, by=0)


def rows_of_blocks(
    x_BHWI: Float[Array, 'B H W I'], kernel_KKIO: Float[Array, 'K K I O'], padding: Padding, rows: int
) -> list[Float[Array, 'B H2/rows W2 O']]:
    """The convolution by blocks of one column: its first row of every block, its second, and so on, apart.

    The last blocks may reach beyond the convolution's own rows.
    """
    return [row for (row,) in _outputs(x_BHWI, kernel_KKIO, padding, (rows, 1), by=0)]


def gradient_by_input(
    kernel_KKIO: Float[Array, 'K K I O'], change_BHWO: Float[Array, 'B H2 W2 O'], padding: Padding, block: Block
) -> Float[Array, 'B H W I']:
    """The gradient of `convolve` by its input: a convolution with the kernel turned by half a circle."""
    most = len(kernel_KKIO) - 1
    around = [(most - low, most - high) for low, high in padding]
    return _convolve(change_BHWO, kernel_KKIO[::-1, ::-1], around, block, by=1)


def gradient_by_kernel(
    x_BHWI: Float[Array, 'B H W I'], change_BHWO: Float[Array, 'B H2 W2 O'], side: int, padding: Padding, block: Block
) -> Float[Array, 'K K I O']:
    """The gradient of `convolve` by its kernel: each step's transpose, backwards.

    With blocks of one column, both arrays are turned as a convolution that sums over images wants them.
    """
    if block[1] == 1:
        x, change = _Images(turn_by_pixel(x_BHWI), (2, 0, 1, 3), 1), _Images(change_BHWO, (1, 2, 0, 3), 0)
        along = lambda x_IHWB, change_HWBO: _along_rows(x_IHWB, change_HWBO, padding[1])[:, 0].swapaxes(0, 1)
    else:
        x, change = _Images(x_BHWI), _Images(change_BHWO)
        along = lambda x, change: (_rows(x).T @ _rows(change))[None]
    of_input, of_kernel, of_output = _matrices_of(block, side)
    counts = [-(-size // many) for size, many in zip(change.sizes, block, strict=True)]
    changes = _both_ways(_transposed(of_output), _blocks(change, block, block, (0, 0), counts))
    inputs = _both_ways(of_input, _reached(x, change.sizes, side, padding, block))
    kernel = _both_ways(_transposed(of_kernel), _pairs(along, inputs, changes))
    return jnp.stack([jnp.concatenate(row) for row in kernel])


class _Images(NamedTuple):
    """Images as they are to lie: the order of their axes, and which of them is that of rows; columns follow it."""

    array: Array
    axes: tuple[int, ...] = (0, 1, 2, 3)
    rows: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape[axis] for axis in self.axes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows and columns."""
        return self.shape[self.rows : self.rows + 2]


def _convolve(x_BHWI: Array, kernel_KKIO: Array, padding: Padding, block: Block, by: int) -> Array:
    """`by`: which of the kernel's channels are summed over."""
    h, w = _sizes(x_BHWI, len(kernel_KKIO), padding)
    outputs = _outputs(x_BHWI, kernel_KKIO, padding, block, by)
    pixels = jnp.stack([jnp.stack(row, 3) for row in outputs], 2)
    b, rows, _, columns, _, o = pixels.shape
    return pixels.reshape(b, rows * block[0], columns * block[1], o)[:, :h, :w]


def _sizes(x_BHWI: Array, side: int, padding: Padding) -> tuple[int, int]:
    """Rows and columns of output."""
    h, w = (size + sum(ends) - side + 1 for size, ends in zip(x_BHWI.shape[1:3], padding, strict=True))
    return h, w


def _outputs(x_BHWI: Array, kernel_KKIO: Array, padding: Padding, block: Block, by: int) -> Grid:
    """At [y][x] output y, x of every block."""
    side = len(kernel_KKIO)
    of_input, of_kernel, of_output = _matrices_of(block, side)
    inputs = _both_ways(of_input, _reached(_Images(x_BHWI), _sizes(x_BHWI, side, padding), side, padding, block))
    kernel = _both_ways(of_kernel, [[row] if block[1] == 1 else list(row) for row in kernel_KKIO])

    def product(x: Array, weights: Array) -> Array:
        if block[1] == 1:
            # XLA has quick convolutions only for kernels whose output channels come last.
            return _along_rows(x, (weights.swapaxes(1, 2) if by else weights)[None], padding[1])
        return jax.lax.dot_general(x, weights, (((3,), (by,)), ((), ())))

    return _both_ways(of_output, _pairs(product, inputs, kernel))


def _along_rows(x_BHWI: Array, kernel_1KIO: Array, ends: tuple[int, int]) -> Array:
    return jax.lax.conv_general_dilated(
        x_BHWI, kernel_1KIO, (1, 1), [(0, 0), ends], dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )


def _reached(x: _Images, sizes: Sequence[int], side: int, padding: Padding, block: Block) -> Grid:
    """At [y][x] input y, x of every block of outputs, of which there are `sizes`; whole rows for one column."""
    counts = [-(-size // many) for size, many in zip(sizes, block, strict=True)]
    lows = [low for low, _ in padding]
    reach = [many + side - 1 for many in block]
    if block[1] == 1:
        reach[1], lows[1], counts[1] = 1, 0, x.sizes[1]
    return _blocks(x, block, reach, lows, counts)


def _blocks(images: _Images, block: Block, reach: Sequence[int], lows: Sequence[int], counts: Sequence[int]) -> Grid:
    """At [y][x] number y, x of every block: they begin a `block` apart, after so many zeros, and may overlap."""
    more = [-(-(far - many) // many) for far, many in zip(reach, block, strict=True)]
    wide = [count + extra for count, extra in zip(counts, more, strict=True)]
    before, after = images.shape[: images.rows], images.shape[images.rows + 2 :]
    ends = [(low, n * many - size - low) for low, n, many, size in zip(lows, wide, block, images.sizes, strict=True)]
    ends = [(0, 0)] * len(before) + ends + [(0, 0)] * len(after)
    # Apart, or what comes before, such as a batch norm's gradient, is made again for each entry.
    lay = lambda array: jnp.pad(array.transpose(images.axes), ends)
    array = apart(lay, images.array).reshape(*before, wide[0], block[0], wide[1], block[1], *after)

    def part(index: int, way: int) -> tuple[slice, int]:
        first, within = divmod(index, block[way])
        return slice(first, first + counts[way]), within

    every = (slice(None),) * len(before)
    return [[array[*every, *part(y, 0), *part(x, 1)] for x in range(reach[1])] for y in range(reach[0])]


def _pairs(product: Callable[[Array, Array], Array], one: Grid, other: Grid) -> Grid:
    return [[product(*pair) for pair in zip(*rows, strict=True)] for rows in zip(one, other, strict=True)]


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _both_ways(matrices: Sequence[Matrix], grid: Grid) -> Grid:
    """matrix @ grid @ matrix.T, one matrix for rows and one for columns, where the grid's entries are arrays."""
    half = [_apply(matrices[0], column) for column in zip(*grid, strict=True)]
    return [_apply(matrices[1], row) for row in zip(*half, strict=True)]


def _apply(matrix: Matrix, arrays: Sequence[Array]) -> list[Array]:
    # By jax.lax's operations, of which there are thousands: jnp's take five times as long to trace.
    times = lambda factor, array: array if factor == 1 else jax.lax.mul(array, array.dtype.type(factor))
    return [
        functools.reduce(jax.lax.add, [times(*pair) for pair in zip(row, arrays, strict=True) if pair[0]])
        for row in matrix
    ]


def _transposed(matrices: Sequence[Matrix]) -> list[Matrix]:
    return [tuple(zip(*matrix, strict=True)) for matrix in matrices]


def _matrices_of(block: Block, side: int) -> tuple[tuple[Matrix, Matrix], ...]:
    """Of input, kernel and output, each for rows and for columns."""
    return tuple(zip(*(_matrices(many, side) for many in block), strict=True))


@functools.cache
def _matrices(outputs: int, side: int) -> tuple[Matrix, Matrix, Matrix]:
    """Of input, kernel and output, by Toom's and Cook's way, transposed; for one output all three are 1."""
    if outputs == 1:
        return (((1.0,),),) * 3
    points = np.array(_POINTS[: outputs + side - 2])
    others = [np.delete(points, at) for at in range(len(points))]
    of_input = [[*np.poly(roots)[::-1], 0] for roots in others] + [np.poly(points)[::-1]]
    scales = [np.prod(point - roots) for point, roots in zip(points, others, strict=True)]
    of_kernel = [point ** np.arange(side) / scale for point, scale in zip(points, scales, strict=True)]
    of_output = [[*points**power, float(power == outputs - 1)] for power in range(outputs)]
    at_infinity = [float(power == side - 1) for power in range(side)]
    return tuple(
        tuple(tuple(map(float, row)) for row in matrix) for matrix in (of_input, [*of_kernel, at_infinity], of_output)
    )
