"""Structural similarity of pairs of images (Wang et al. 2004), as scikit-image defines it, batched on the device.

The formula needs the variances' sum alone, so that four maps go through the window instead of five. Of 8-bit pixels x
and y under a uniform window they are the whole numbers x, y, x^2 + y^2 and x y, the first two within one integer. Of
all else they are s = x + y, d = x - y and their squares: 2 mx my and mx^2 + my^2 are half of ms^2 -+ md^2, and so for
covariance and variances. Either way x and y alike leave no rounding in the quotient.

Shape letters: N pairs, H and W pixels, C channels, P values of all images, B pairs of a batch.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped
from tqdm import tqdm

from fer_jax.errors import UserError

WINDOWS = ('uniform', 'gaussian')
_TRUNCATE = 3.5  # deviations at which scikit-image cuts the Gaussian
_EXACT_SIDE = 11  # n pixels in all: n^2 times 2 255^2 stays below 2^31, and 255 n below 2^15


@dataclasses.dataclass(frozen=True)
class Window:
    """Over what the means, variances and covariances of a place are taken.

    Attributes:
        kind: `uniform` (a square in which every pixel counts alike) or `gaussian`.
        side: of the square, odd; the Gaussian's follows from `sigma`.
        sigma: the Gaussian's deviation in pixels.
        use_sample_covariance: whether covariances are divided by n - 1 instead of n, the number of pixels in the
            window; Wang et al. do not.
    """

    kind: str = 'uniform'
    side: int = 7
    sigma: float = 1.5
    use_sample_covariance: bool = True

    def __post_init__(self):
        if self.kind not in WINDOWS:
            raise UserError(f'the window of SSIM is {self.kind!r}; it can be {" or ".join(WINDOWS)}')
        if self.kind == 'gaussian':
            if not self.sigma > 0:
                raise UserError(f'the Gaussian window of SSIM has sigma {self.sigma}; it must be above 0')
            object.__setattr__(self, 'side', 2 * int(_TRUNCATE * self.sigma + 0.5) + 1)
        elif self.side < 3 or self.side % 2 == 0:
            raise UserError(f'the window of SSIM is {self.side} pixels wide; it must be odd, and 3 or more')

    @property
    def weights(self) -> tuple[float, ...]:
        """Along one axis. The Gaussian's sum is 1 exactly, in float32 too: what it missed would count as variance."""
        if self.kind == 'uniform':
            return (1 / self.side,) * self.side
        offsets = np.arange(self.side) - self.side // 2
        bell = np.exp(-0.5 * (offsets / self.sigma) ** 2)
        units = np.round(bell / bell.sum() * 2**24)
        units[self.side // 2] += 2**24 - units.sum()
        return tuple(float(weight) for weight in units / 2**24)

    @property
    def correction(self) -> float:
        """What turns a mean of squared differences into the variance wanted."""
        values = self.side**2
        return values / (values - 1) if self.use_sample_covariance else 1.0


def ssim(
    first: Shaped[Array, 'N H W *C'],
    second: Shaped[Array, 'N H W *C'],
    data_range: float | None = None,
    window: Window = Window(),
) -> Float[Array, ' N']:
    """SSIM of each pair, the mean over all places where the window lies inside, and over channels.

    Equal to `skimage.metrics.structural_similarity` of each pair (with `channel_axis=-1` where there are channels) in
    double precision to 1e-5: 8-bit pixels under a uniform window are summed without any rounding; floats are first
    shifted by the pair's own mean.

    Args:
        first, second: uint8 or floating, both alike.
        data_range: largest less smallest value that a pixel can have; it may be left out for uint8, where it is 255.
        window: see `Window`.

    Raises:
        UserError: if shapes or types differ, the window is larger than an image, or the range is missing.
    """
    data_range = _check(first, second, data_range, window)
    if first.dtype == jnp.uint8 and window.kind == 'uniform' and window.side <= _EXACT_SIDE:
        return _exact_across(_exact_down(first, second, window), data_range, first.shape, window)
    maps, shifts = _sum_and_difference(first, second)
    return _across(_down(maps, _row(first.shape), window), shifts, data_range, first.shape, window)


# Several programs, since XLA on a CPU fuses one into loops that compute each sum down again for every place across: 243
# microseconds of processor time for 64x64 grey pixels under the Gaussian, instead of 26. In each, all images are one
# row of values, so that every loop is a plain one: the pixel below lies one image row further on. Places whose window
# reaches into the next row or image are cut off at the end.


@functools.partial(jax.jit, static_argnames=('window',))
def _exact_down(first: Array, second: Array, window: Window) -> list[Array]:
    """Sums down the columns of x + 2^16 y, x^2 + y^2 and x y: integers [P]."""
    x, y = (images.ravel().astype(jnp.int32) for images in (first, second))
    return [_sum(values, _row(first.shape), window) for values in (x + (y << 16), x * x + y * y, x * y)]


@functools.partial(jax.jit, static_argnames=('shape', 'window'))
def _exact_across(maps: list[Array], data_range: Array, shape: tuple[int, ...], window: Window) -> Float[Array, ' N']:
    """The same along the rows, then the mean quotient; all of its parts are n^2 times what the formula says."""
    both, squares, products = (_sum(values, _stride(shape), window) for values in maps)
    x, y = both & (2**16 - 1), both >> 16
    n = window.side**2
    c1, c2 = jnp.square(0.01 * data_range) * n**2, jnp.square(0.03 * data_range) * n**2 / window.correction
    means = [2 * x * y, x * x + y * y]
    variances = [2 * n * products - means[0], n * squares - means[1]]
    above, below = (
        (mean.astype(jnp.float32) + c1) * (variance.astype(jnp.float32) + c2)
        for mean, variance in zip(means, variances, strict=True)
    )
    return _mean(above / below, shape, window)


@jax.jit
def _sum_and_difference(first: Array, second: Array) -> tuple[list[Array], list[Array]]:
    """s and d [P], and what was taken off each so that their squares are small: a number or, of floats, [P]."""
    integers = first.dtype == jnp.uint8
    first, second = (images.astype(jnp.float32).reshape(len(images), -1) for images in (first, second))
    values = [first + second, first - second]
    if integers:
        shifts = [jnp.float32(255), jnp.float32(0)]
    else:
        shifts = [jnp.broadcast_to(part.mean(1, keepdims=True), part.shape).ravel() for part in values]
    return [part.ravel() - shift for part, shift in zip(values, shifts, strict=True)], shifts


@functools.partial(jax.jit, static_argnames=('row', 'window'))
def _down(maps: list[Array], row: int, window: Window) -> list[Array]:
    """Of s, s^2, d and d^2, what the window weighs together down the columns."""
    return [_sum(part, row, window, window.weights) for values in maps for part in (values, values * values)]


@functools.partial(jax.jit, static_argnames=('shape', 'window'))
def _across(
    maps: list[Array], shifts: list[Array], data_range: Array, shape: tuple[int, ...], window: Window
) -> Float[Array, ' N']:
    """The same along the rows; then means and variances, and the mean of their quotient over each image."""
    maps = [_sum(values, _stride(shape), window, window.weights) for values in maps]
    means, variances = [], []
    for mean, square, shift in zip(maps[::2], maps[1::2], shifts, strict=True):
        variances.append(jnp.maximum(square - mean * mean, 0) * window.correction / 2)
        means.append(jnp.square(mean + (shift[: len(mean)] if shift.ndim else shift)) / 2)
    c1, c2 = jnp.square(0.01 * data_range), jnp.square(0.03 * data_range)
    above = (means[0] - means[1] + c1) * (variances[0] - variances[1] + c2)
    below = (means[0] + means[1] + c1) * (variances[0] + variances[1] + c2)
    return _mean(above / below, shape, window)


def _mean(quotient_P: Array, shape: tuple[int, ...], window: Window) -> Float[Array, ' N']:
    """Over the places of each image where the window lies inside, and over channels."""
    n, h, w = shape[:3]
    stride = _stride(shape)
    quotient = jnp.pad(quotient_P, (0, n * h * w * stride - len(quotient_P))).reshape(n, h, w * stride)
    return jnp.mean(jnp.mean(quotient[:, : h - window.side + 1, : (w - window.side + 1) * stride], 2), 1)


def _row(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[2:]))


def _stride(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[3:]))


def _sum(values_P: Array, step: int, window: Window, weights: tuple[float, ...] = ()) -> Array:
    """Sums of values that lie `step` apart, weighted or plain."""
    length = len(values_P) - (window.side - 1) * step
    parts = [values_P[place * step : place * step + length] for place in range(window.side)]
    return sum(weight * part for weight, part in zip(weights, parts, strict=True)) if weights else sum(parts)


def _check(first: Array, second: Array, data_range: float | None, window: Window) -> float:
    if first.shape != second.shape or first.dtype != second.dtype:
        ours, theirs = (f'{images.dtype}{list(images.shape)}' for images in (first, second))
        raise UserError(f'SSIM compares images of one shape and type; these are {ours} and {theirs}')
    if first.ndim not in (3, 4):
        raise UserError(f'SSIM takes images [N, H, W] or [N, H, W, C]; these are {list(first.shape)}')
    if min(first.shape[1:3]) < window.side:
        height, width = first.shape[1:3]
        raise UserError(
            f'images of {width}x{height} pixels are smaller than the {window.kind} window of SSIM, {window.side} '
            'pixels a side; take larger images or a smaller window'
        )
    if data_range is None and first.dtype == jnp.uint8:
        return 255.0
    if first.dtype != jnp.uint8 and not jnp.issubdtype(first.dtype, jnp.floating):
        raise UserError(f'SSIM takes uint8 or floating images; these are {first.dtype}')
    if data_range is None or not data_range > 0:
        raise UserError(f'SSIM of {first.dtype} images needs data_range above 0, such as 1 for pixels from 0 to 1')
    return float(data_range)


def score_images(
    score: Callable[..., Float[Array, ' B']],
    ids: np.ndarray,
    *images: np.ndarray,
    batch_size: int,
    progress: str | None = None,
) -> dict[str, float]:
    """A score for every image of a set, each computed once, by id.

    The last batch is padded to the full size, so that one program serves all, and what was padded is cut off again.

    Args:
        score: from a batch of each of `images` to a score per image, such as `ssim`, or a translation and then `ssim`.
        ids: str [N], unique.
        images: one array [N, ...] or several, or what reads when it is indexed: the next batch is read while the
            device works.
        batch_size: B.
        progress: words for a progress bar; None shows none.

    Raises:
        UserError: if ids repeat, or there are not as many images as ids.
    """
    ids = np.asarray(ids)
    n = len(ids)
    for array in images:
        if len(array) != n:
            raise UserError(f'there are {n} ids for {len(array)} images')
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) < n:
        raise UserError(f'the id {str(unique[counts.argmax()])!r} occurs more than once; every image needs its own')

    def read(start: int) -> list[np.ndarray]:
        parts = [array[start : start + batch_size] for array in images]
        padding = batch_size - len(parts[0])
        return [np.concatenate([part, np.repeat(part[-1:], padding, 0)]) for part in parts] if padding else parts

    scores = []
    bar = tqdm(total=n, desc=progress, unit='image', disable=progress is None, dynamic_ncols=True)
    with bar, concurrent.futures.ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, 0) if n else None
        for start in range(0, n, batch_size):
            batch = coming.result()
            if start + batch_size < n:
                coming = reader.submit(read, start + batch_size)
            jax.block_until_ready(scores[-2:-1])  # or the device would fill with batches
            scores.append(score(*batch))
            bar.update(min(batch_size, n - start))
        values = np.concatenate([np.asarray(part) for part in scores])[:n] if scores else ()
    return {str(identity): float(value) for identity, value in zip(ids, values, strict=True)}
