"""On-device augmentation: one affine warp, then light and erasing, batched and compiled into the step.

Shape letters: N examples, H and W pixels of the stored image, S pixels of the output side, C channels.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from fer_jax.draws import in_a_row


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Ranges of every random change; all zeros change nothing. Each is drawn anew for each image and step.

    Attributes:
        flip: mirror left-right with probability one half.
        rotate: degrees to either side.
        shift: fraction of the side, either way, for x and y apart.
        shear: degrees to either side.
        zoom: fraction; the scale is uniform in 1 - zoom to 1 + zoom.
        crop_scale: smallest share of the area that a random crop keeps before it is resized to the full
            side (1 = no crop), as `RandomResizedCrop` does; the place is uniform.
        crop_aspect: largest ratio of the crop's sides (1 = square), log-uniform between 1 / it and it.
        brightness: added, in fractions of the full range, either way.
        contrast: fraction; the factor around the image's mean is uniform in 1 - contrast to 1 + contrast.
        erase: probability that a rectangle is replaced by the image's mean (Zhong et al. 2017).
        erase_area: largest share of the area that is erased; the smallest is 0.02, or this if it is less.
    """

    flip: bool = False
    rotate: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0
    crop_scale: float = 1.0
    crop_aspect: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    erase: float = 0.0
    erase_area: float = 0.2

    @property
    def warps(self) -> bool:
        """Whether any geometric change is asked for."""
        return (
            self.flip
            or any((self.rotate, self.shift, self.shear, self.zoom))
            or self.crop_scale < 1
            or self.crop_aspect > 1
        )


def augment(
    key: Key[Array, ''], images_NHWC: UInt8[Array, 'N H W C'], how: Augmentation, side: int = 0
) -> Float[Array, 'N S S C']:
    """Augments a batch.

    Args:
        key: one key for the batch; every image and every change draws apart.
        images_NHWC: stored images, 0 to 255.
        how: the ranges.
        side: side of the output; 0 keeps the stored one. A smaller side cuts a window at a random place.

    Returns:
        float32 images on the same 0 to 255 scale.
    """
    n, height, width, _ = images_NHWC.shape
    side_h, side_w = (side, side) if side else (height, width)
    warp_key, light_key, erase_key = jax.random.split(key, 3)
    if how.warps or (side_h, side_w) != (height, width):
        matrices_N23 = random_affine(warp_key, n, (height, width), (side_h, side_w), how)
        out_NSSC = affine_warp(images_NHWC, matrices_N23, (side_h, side_w))
    else:
        out_NSSC = images_NHWC.astype(jnp.float32)
    if how.brightness or how.contrast:
        out_NSSC = _light(light_key, out_NSSC, how)
    if how.erase:
        out_NSSC = _erase(erase_key, out_NSSC, how)
    return out_NSSC


def random_affine(
    key: Key[Array, ''], n: int, source: tuple[int, int], target: tuple[int, int], how: Augmentation
) -> Float[Array, 'N 2 3']:
    """Matrices that take (y, x, 1) of the output, from its centre in pixels, to (y, x) of the source, from its centre.

    The order is the one of a single product: window and crop, then zoom, shear, rotation, flip and shift.
    """
    u = in_a_row(jax.random.uniform, key, (11, n), minval=-1.0, maxval=1.0)
    height, width = source
    angle = jnp.deg2rad(how.rotate) * u[0]
    shear = jnp.tan(jnp.deg2rad(how.shear) * u[1])
    zoom = 1.0 / (1.0 + how.zoom * u[2])
    flip = jnp.where(u[3] > 0, -1.0, 1.0) if how.flip else jnp.ones(n)
    # Crop: area share a and aspect r give sides sqrt(a r) and sqrt(a / r) of the full ones, at most 1.
    area = 1.0 - (1.0 - how.crop_scale) * (u[4] + 1) / 2
    aspect = jnp.exp(jnp.log(how.crop_aspect) * u[5])
    crop_h, crop_w = jnp.minimum(jnp.sqrt(area * aspect), 1.0), jnp.minimum(jnp.sqrt(area / aspect), 1.0)
    # The window of a smaller output moves over what remains of the source.
    free_y = ((1.0 - crop_h) * height + (height - target[0]) * crop_h) / 2
    free_x = ((1.0 - crop_w) * width + (width - target[1]) * crop_w) / 2
    if how.warps:
        offset_y = free_y * u[6] + how.shift * height * u[8]
        offset_x = free_x * u[7] + how.shift * width * u[9]
    else:  # a window alone moves by whole pixels, so that it is cut and not resampled
        offset_y = _whole_pixels(height - target[0], u[6])
        offset_x = _whole_pixels(width - target[1], u[7])
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rows = [
        [zoom * crop_h * cos, zoom * crop_w * (cos * shear - sin) * flip, offset_y],
        [zoom * crop_h * sin, zoom * crop_w * (sin * shear + cos) * flip, offset_x],
    ]
    return jnp.stack([jnp.stack(row, -1) for row in rows], 1)


def _whole_pixels(free: int, u: Float[Array, N]) -> Float[Array, N]:
    """From uniform -1 to 1: the offset from the centre of a window that starts at one of `free + 1` pixels."""
    return jnp.clip(jnp.floor((u + 1) / 2 * (free + 1)), 0, free) - free / 2


def affine_warp(
    images_NHWC: Array, matrices_N23: Float[Array, 'N 2 3'], target: tuple[int, int]
) -> Float[Array, 'N S S C']:
    """Samples images along maps as `random_affine` gives them, bilinear, edge pixels repeated outside."""
    height, width = images_NHWC.shape[1:3]
    y, x = jnp.meshgrid(
        jnp.arange(target[0]) - (target[0] - 1) / 2, jnp.arange(target[1]) - (target[1] - 1) / 2, indexing='ij'
    )

    def warp_one(image_HWC, matrix_23):
        source_y, source_x = (row[0] * y + row[1] * x + row[2] for row in matrix_23)
        coordinates = [source_y + (height - 1) / 2, source_x + (width - 1) / 2]
        sample = lambda plane: jax.scipy.ndimage.map_coordinates(plane, coordinates, order=1, mode='nearest')
        return jax.vmap(sample, in_axes=-1, out_axes=-1)(image_HWC.astype(jnp.float32))

    return jax.vmap(warp_one)(images_NHWC, matrices_N23)


def _light(key, images_NHWC, how: Augmentation):
    u = in_a_row(jax.random.uniform, key, (2, len(images_NHWC), 1, 1, 1), minval=-1.0, maxval=1.0)
    mean = images_NHWC.mean((1, 2, 3), keepdims=True)
    lit = (images_NHWC - mean) * (1.0 + how.contrast * u[0]) + mean + 255.0 * how.brightness * u[1]
    return jnp.clip(lit, 0.0, 255.0)


def _erase(key, images_NHWC, how: Augmentation):
    n, height, width, _ = images_NHWC.shape
    u = in_a_row(jax.random.uniform, key, (5, n, 1, 1, 1))
    smallest = min(0.02, how.erase_area)
    area = smallest + (how.erase_area - smallest) * u[0]
    aspect = jnp.exp(jnp.log(3.0) * (2 * u[1] - 1))
    box_h, box_w = jnp.sqrt(area * aspect) * height, jnp.sqrt(area / aspect) * width
    top, left = (height - box_h) * u[2], (width - box_w) * u[3]
    y, x = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    inside = (y >= top) & (y < top + box_h) & (x >= left) & (x < left + box_w) & (u[4] < how.erase)
    return jnp.where(inside, images_NHWC.mean((1, 2, 3), keepdims=True), images_NHWC)
