"""Colours of the drawn faces, and the soft-edged shapes that are filled with them."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fer_jax.data.face_parameters import FaceParameters

# sRGB in 0..1, ordered so that neighbours blend well.
SKIN = (
    (0.98, 0.86, 0.78),
    (0.94, 0.77, 0.66),
    (0.87, 0.68, 0.54),
    (0.74, 0.54, 0.40),
    (0.57, 0.39, 0.28),
    (0.47, 0.32, 0.24),
)
HAIR = (
    (0.09, 0.08, 0.08),
    (0.20, 0.13, 0.09),
    (0.36, 0.22, 0.13),
    (0.55, 0.30, 0.15),
    (0.80, 0.63, 0.38),
    (0.70, 0.69, 0.69),
)
IRIS = ((0.22, 0.13, 0.08), (0.38, 0.24, 0.12), (0.30, 0.40, 0.22), (0.25, 0.42, 0.58), (0.42, 0.48, 0.52))
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def _between(colours: tuple, position_N: jax.Array) -> jax.Array:
    weights = [jnp.maximum(0, 1 - jnp.abs(position_N - k)) for k in range(len(colours))]
    return sum(weight[:, None] * jnp.array(colour) for weight, colour in zip(weights, colours, strict=True))


def mix_palette(faces: FaceParameters, channels: int) -> dict[str, jax.Array]:
    """The colours of each face by name, [N, C, 1, 1]; grey ones are the luma of the coloured ones."""
    who, place, light = faces.identity, faces.background, faces.light
    warmth = who['skin_warmth'][:, None] * jnp.array((0.02, 0.0, -0.03))
    skin = _between(SKIN, who['skin_tone']) + warmth
    red = who['lip_red'][:, None]
    grey = jnp.clip(who['age'] * 3 - 2, 0, 1)[:, None]
    hair = _between(HAIR, who['hair_tone']) * (1 - grey) + grey * jnp.array(HAIR[-1])
    lips = skin * (1 - red * jnp.array((0.16, 0.48, 0.42)))
    colours = {
        'skin': skin,
        'crease': skin * jnp.array((0.50, 0.38, 0.34)),
        'blush': skin * jnp.array((1.0, 0.78, 0.74)),
        'lips': lips * 0.92,
        'hair': hair,
        'brow': 0.75 * jnp.minimum(hair, 0.5 * hair + 0.3 * skin),
        'iris': _between(IRIS, who['iris_tone']),
        'clothes': jnp.stack([place[f'clothes_{name}'] for name in ('red', 'green', 'blue')], -1),
        'back': jnp.stack([place[name] for name in ('red', 'green', 'blue')], -1),
        'back_2': jnp.stack([place[f'{name}_2'] for name in ('red', 'green', 'blue')], -1),
        'white': jnp.full_like(skin, 0.96),
        'teeth': jnp.full_like(skin, 0.93) * jnp.array((1.0, 0.98, 0.93)),
        'black': jnp.full_like(skin, 0.05),
        'mouth': jnp.full_like(skin, 1.0) * jnp.array((0.28, 0.07, 0.08)),
        'tongue': jnp.full_like(skin, 1.0) * jnp.array((0.68, 0.30, 0.30)),
    }
    for name in ('back', 'back_2', 'clothes'):
        colours[name] = 0.55 * colours[name] + 0.45 * colours[name].mean(-1, keepdims=True)
    tint = 1 + light['warmth'][:, None] * jnp.array((1.0, 0.0, -1.0))
    if channels == 1:
        luma = tint * jnp.array(LUMA)
        return {name: (colour * luma).sum(-1)[:, None, None, None] for name, colour in colours.items()}
    return {name: (colour * tint)[:, :, None, None] for name, colour in colours.items()}


def paint(image: jax.Array, colour: jax.Array, cover: jax.Array) -> jax.Array:
    """`colour` over the image where `cover` (0..1) says."""
    return image + cover * (colour - image)


def inside(distance: jax.Array, pixel: jax.Array) -> jax.Array:
    """How much of a pixel lies where the signed distance is negative."""
    return jnp.clip(0.5 - distance / pixel, 0, 1)


def band(value: jax.Array, low: jax.Array, high: jax.Array, pixel: jax.Array) -> jax.Array:
    """How much of a pixel lies between two edges; right for bands thinner than a pixel too."""
    return jnp.maximum(inside(low - value, pixel) - inside(high - value, pixel), 0)


def blob(x: jax.Array, y: jax.Array, radius_x: jax.Array | float, radius_y: jax.Array | float) -> jax.Array:
    """A soft spot: 1 in its middle, 0 from the ellipse outwards."""
    square = jnp.maximum(1 - (x / radius_x) ** 2 - (y / radius_y) ** 2, 0)
    return square * square


def window(value: jax.Array, low: jax.Array | float, high: jax.Array | float) -> jax.Array:
    """A parabola of height 1 between two values, 0 outside."""
    t = (value - low) / (high - low)
    return jnp.maximum(4 * t * (1 - t), 0)
