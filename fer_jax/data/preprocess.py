"""From stored pixels to what a network sees: window, views for test-time augmentation, normalisation.

Shape letters: N images, H and W pixels, S side of the window, C channels, V views.
"""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped
from tqdm import tqdm

from fer_jax.errors import UserError

_TOGETHER = 2**24  # pixel values counted at a time

VIEWS = {'none': 1, 'flip': 2, 'five_crop': 5, 'ten_crop': 10}


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Everything between a stored image and the network's input; kept with each run.

    Attributes:
        size: side in pixels of the stored images.
        channels: 1 or 3.
        crop: side of the window the network sees; 0 = the whole image.
        normalize: 'dataset' (by mean and deviation below) or 'image' (by each image's own).
        mean, deviation: of the training pixels, on the 0 to 255 scale.
    """

    size: int
    channels: int
    crop: int = 0
    normalize: str = 'dataset'
    mean: float = 127.5
    deviation: float = 64.0

    def __post_init__(self):
        if self.normalize not in ('dataset', 'image'):
            raise UserError(f'config.data.normalize is {self.normalize!r}; it can be dataset or image')
        if self.crop > self.size or self.crop < 0:
            raise UserError(f'config.data.crop is {self.crop}; the images have {self.size} pixels a side')

    @property
    def input_side(self) -> int:
        """Side of what the network sees."""
        return self.crop or self.size


def normalize(images_NSSC: Float[Array, 'N S S C'], how: Preprocessing) -> Float[Array, 'N S S C']:
    """Zero mean and unit deviation, by the training set's figures or each image's own.

    An image's own deviation is taken as at least 8 grey levels, so that a flat image is not blown up to noise.
    """
    if how.normalize == 'dataset':
        return (images_NSSC - how.mean) / how.deviation
    mean = images_NSSC.mean((1, 2, 3), keepdims=True)
    return (images_NSSC - mean) / jnp.maximum(images_NSSC.std((1, 2, 3), keepdims=True), 8.0)


def views(images_NHWC: Shaped[Array, 'N H W C'], tta: str, how: Preprocessing) -> Float[Array, 'V N S S C']:
    """The network's inputs for each view of test-time augmentation, normalised.

    `none` is the central window, `flip` adds its mirror image, `five_crop` is the four corner windows and the
    centre, `ten_crop` adds their mirror images. A network that sees whole images gets windows of 11/12 of the
    side (44 of 48), resized back.
    """
    if tta not in VIEWS:
        raise UserError(f'test-time augmentation {tta!r} is none of {", ".join(VIEWS)}')
    images_NHWC = images_NHWC.astype(jnp.float32)
    side = how.input_side
    free = how.size - side
    if tta in ('none', 'flip'):
        start = free // 2
        windows = [images_NHWC[:, start : start + side, start : start + side]]
    else:
        window = side if how.crop else how.size * 11 // 12
        free = how.size - window
        starts = [(0, 0), (0, free), (free, 0), (free, free), (free // 2, free // 2)]
        windows = [images_NHWC[:, top : top + window, left : left + window] for top, left in starts]
        if window != side:
            shape = (len(images_NHWC), side, side, images_NHWC.shape[-1])
            windows = [jax.image.resize(cut, shape, 'bilinear') for cut in windows]
    if tta in ('flip', 'ten_crop'):
        windows += [cut[:, :, ::-1] for cut in windows]
    return jnp.stack([normalize(cut, how) for cut in windows])


def pixel_figures(images_NHWC: np.ndarray, progress: str = '') -> tuple[float, float]:
    """Mean and standard deviation of all pixel values, to four digits, read in parts and counted exactly.

    Args:
        images_NHWC: uint8, an array or what reads when it is indexed.
        progress: words for a progress bar.
    """
    counts_256 = np.zeros(256, np.int64)
    together = max(1, _TOGETHER // int(np.prod(images_NHWC.shape[1:])))
    with tqdm(total=len(images_NHWC), desc=progress, unit='image', disable=None if progress else True) as bar:
        for start in range(0, len(images_NHWC), together):
            part = images_NHWC[start : start + together]
            counts_256 += np.bincount(part.ravel(), minlength=256)
            bar.update(len(part))
    counts = [int(count) for count in counts_256]
    mean = Fraction(sum(value * count for value, count in enumerate(counts)), sum(counts))
    variance = sum((value - mean) ** 2 * count for value, count in enumerate(counts)) / sum(counts)
    return round(float(mean), 4), round(math.sqrt(variance), 4)
