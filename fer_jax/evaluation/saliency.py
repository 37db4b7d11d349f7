"""Grad-CAM: where in an image a network saw the class that it names.

Selvaraju et al. 2017 (arXiv:1610.02391), equations 1 and 2, on the networks' `maps`, their last convolutional features.
Shape letters: M members, N images, S side of what the network sees, H, W, C of the maps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from fer_jax.data.preprocess import Preprocessing, views
from fer_jax.models.fusion import for_each_member

_NOTHING = 1e-12  # a map whose highest value is less than this shows nothing and stays as it is


def make_saliency(
    model: nn.Module, preprocessing: Preprocessing
) -> Callable[[Any, UInt8[Array, 'N H W C'], Int[Array, ' N']], Float[Array, 'N S S']]:
    """A compiled function from stacked variables, stored images and a class for each to maps from 0 to 1.

    Of each member the map is scaled so that its highest value is 1, unless nothing speaks for the class, where it is 0;
    these are averaged, and enlarged (bilinear) to the central window that the network sees.
    """

    def of_member(variables: Any, inputs_NSSC: Array, classes_N: Array) -> Array:
        def score(shift_NHWC: Array) -> tuple[Array, Array]:
            logits_NK, more = model.apply({**variables, 'saliency': {'shift': shift_NHWC}}, inputs_NSSC)
            return jnp.take_along_axis(logits_NK, classes_N[:, None], 1).sum(), more['maps']

        maps = jax.eval_shape(lambda: model.apply(variables, inputs_NSSC)[1]['maps'])
        gradients_NHWC, maps_NHWC = jax.grad(score, has_aux=True)(jnp.zeros(maps.shape, maps.dtype))
        return grad_cam(maps_NHWC, gradients_NHWC)

    @jax.jit
    def saliency(variables_M: Any, images_NHWC: Array, classes_N: Array) -> Array:
        inputs_NSSC = views(images_NHWC, 'none', preprocessing)[0]
        heat_MNHW = for_each_member(lambda variables: of_member(variables, inputs_NSSC, classes_N), variables_M)
        return jax.image.resize(heat_MNHW.mean(0), inputs_NSSC.shape[:3], 'bilinear')

    return saliency


def grad_cam(maps_NHWC: Float[Array, 'N H W C'], gradients_NHWC: Float[Array, 'N H W C']) -> Float[Array, 'N H W']:
    """The maps' sum, each weighted by the mean of its gradient, without what is negative; scaled to at most 1."""
    maps_NHWC, gradients_NHWC = maps_NHWC.astype(jnp.float32), gradients_NHWC.astype(jnp.float32)
    weights = gradients_NHWC.mean((1, 2), keepdims=True)
    heat_NHW = nn.relu((weights * maps_NHWC).sum(-1))
    highest = heat_NHW.max((1, 2), keepdims=True)
    return heat_NHW / jnp.where(highest > _NOTHING, highest, 1)
