"""Draws faces: back to front, each part a soft-edged shape over the pixels, all faces at once."""

from __future__ import annotations

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from fer_jax.data import face_features, face_head
from fer_jax.data.face_geometry import express, look
from fer_jax.data.face_palette import mix_palette
from fer_jax.data.face_parameters import FaceParameters
from fer_jax.draws import in_a_row

# The faces that one program draws: 256 at 48 pixels, fewer of larger ones, so that memory stays bounded.
_CHUNK_PIXELS = 256 * 48 * 48


def draw(faces: FaceParameters, size: int, channels: int) -> UInt8[Array, 'n {size} {size} {channels}']:
    """One image per face, 0..255; pure, for use inside jit with static `size` and `channels` (1 grey, 3 RGB)."""
    canvas, features = look(faces, size), express(faces)
    palette = mix_palette(faces, channels)
    image = face_head.draw_background(canvas, palette, faces)
    for part in (
        face_head.draw_back_hair,
        face_head.draw_body,
        face_head.draw_head,
        face_features.draw_lines,
        face_features.draw_beard,
        face_features.draw_nose,
        face_features.draw_mouth,
        face_features.draw_eyes,
        face_head.draw_hair,
        face_features.draw_brows,
        face_head.draw_glasses,
    ):
        image = part(image, canvas, features, palette)
    return _photograph(image, faces, size, channels)


def _photograph(image: jax.Array, faces: FaceParameters, size: int, channels: int) -> jax.Array:
    """Contrast, brightness, blur and noise; float [N, C, S, S] in 0..1 to uint8 [N, S, S, C]."""
    light = {name: value[:, None, None, None] for name, value in faces.light.items()}
    image = (image - 0.5) * light['contrast'] + 0.5 + light['brightness']
    distance = jnp.arange(size)[:, None] - jnp.arange(size)[None, :]
    sigma = jnp.maximum(faces.blur * size, 0.05)[:, None, None]
    kernel = jnp.exp(-0.5 * (distance / sigma) ** 2)
    kernel = kernel / kernel.sum(-1, keepdims=True)
    image = jnp.einsum('nrs,ncst,nut->ncru', kernel, image, kernel, precision='highest')
    # Four bytes of one random word add up to nearly a normal variable, far cheaper than erfinv.
    bits = functools.partial(in_a_row, jax.random.bits, shape=(channels, size, size), dtype=jnp.uint32)
    words = jax.vmap(lambda seed: bits(jax.random.key(seed)))(faces.noise_seed)
    total = (words & 255) + (words >> 8 & 255) + (words >> 16 & 255) + (words >> 24)
    image = image + faces.noise[:, None, None, None] * (total.astype(jnp.float32) - 510) / 147.8
    return jnp.moveaxis(jnp.round(jnp.clip(image, 0, 1) * 255).astype(jnp.uint8), 1, -1)


_draw_chunk = jax.jit(draw, static_argnums=(1, 2))


def render(parameters: FaceParameters, size: int = 48, channels: int = 1) -> np.ndarray:
    """Draws any number of faces through one compiled program, in chunks, the last one padded.

    Returns:
        uint8 [N, size, size, channels]; an image does not depend on the faces drawn with it.
    """
    if size < 8 or channels not in (1, 3):
        raise ValueError(f'size is {size} and channels {channels}; size is at least 8, channels 1 (grey) or 3 (RGB)')
    count = len(parameters.units)
    chunk = max(1, _CHUNK_PIXELS // (size * size * channels))
    images = np.empty((count, size, size, channels), np.uint8)
    parameters = jax.tree.map(np.asarray, parameters)  # rows picked here compile nothing
    for start in range(0, count, chunk):
        rows = np.minimum(np.arange(start, start + chunk), count - 1)
        part = jax.tree.map(operator.itemgetter(rows), parameters)
        images[start : start + chunk] = np.asarray(_draw_chunk(part, size, channels))[: count - start]
    return images
