"""Where the parts of a face are: action units move its features, the pose turns the head's ellipsoid."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fer_jax.data.face_parameters import FaceParameters
from fer_jax.data.face_units import ACTION_UNITS

# Semi-axes of the ellipsoid that carries the features, in half head heights.
_RADII = (0.82, 1.15, 0.72)
_FRAME = 1.0  # half width of the image, in half head heights


class Canvas(NamedTuple):
    """Per-pixel coordinates [N, 1, S, S] and per-face scalars [N, 1, 1, 1], in half head heights, y downwards.

    Attributes:
        x, y: in the plane of the image, with roll, shift and scale undone.
        X, Y: of the point of the head that the pixel shows, in the head's own frame.
        A: |X|, so that what is drawn once lands on both sides.
        side: -1 on the left of the image (the person's right), +1 on the right.
        shade: light that falls on that point, about 0.4..1.1.
        dx, dy: how far a point moves over the face for each unit that it stands out from it (parallax).
        pixel: side of a pixel.
    """

    x: jax.Array
    y: jax.Array
    X: jax.Array
    Y: jax.Array
    A: jax.Array
    side: jax.Array
    shade: jax.Array
    dx: jax.Array
    dy: jax.Array
    pixel: jax.Array


def _dot(a: tuple, b: tuple) -> jax.Array:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def look(faces: FaceParameters, size: int) -> Canvas:
    """Casts one parallel ray per pixel onto the turned ellipsoid."""
    pose, light = ({k: v[:, None, None, None] for k, v in part.items()} for part in (faces.pose, faces.light))
    pixel = 2 * _FRAME / size / pose['scale']
    grid = jnp.arange(size) - (size - 1) / 2
    column, row = pixel * grid[None, :], pixel * grid[:, None]
    column, row = column - pose['shift_x'], row - pose['shift_y']
    sin_r, cos_r = jnp.sin(pose['roll']), jnp.cos(pose['roll'])
    x, y = cos_r * column + sin_r * row, cos_r * row - sin_r * column

    # Rows of the rotation from the view's frame into the head's (yaw about y, then pitch about x).
    sin_y, cos_y = jnp.sin(pose['yaw']), jnp.cos(pose['yaw'])
    sin_p, cos_p = jnp.sin(pose['pitch']), jnp.cos(pose['pitch'])
    rotation = (
        (cos_y, sin_y * sin_p, -sin_y * cos_p),
        (jnp.zeros_like(sin_y), cos_p, sin_p),
        (sin_y, -cos_y * sin_p, cos_y * cos_p),
    )
    view = tuple(line[2] for line in rotation)
    origin = tuple(line[0] * x + line[1] * y for line in rotation)
    o = tuple(value / radius for value, radius in zip(origin, _RADII, strict=True))
    d = tuple(value / radius for value, radius in zip(view, _RADII, strict=True))
    a, b, c = _dot(d, d), _dot(o, d), _dot(o, o) - 1
    depth = (jnp.sqrt(jnp.maximum(b * b - a * c, 0)) - b) / a
    X, Y, Z = (value + depth * slope for value, slope in zip(origin, view, strict=True))
    normal = tuple(value / radius**2 for value, radius in zip((X, Y, Z), _RADII, strict=True))
    azimuth, elevation = light['azimuth'], light['elevation']
    lamp = (jnp.sin(azimuth) * jnp.cos(elevation), -jnp.sin(elevation), jnp.cos(azimuth) * jnp.cos(elevation))
    lamp = tuple(_dot(line, lamp) for line in rotation)
    lambert = jnp.maximum(_dot(normal, lamp), 0) * jax.lax.rsqrt(_dot(normal, normal) + 1e-6)
    side = jnp.where(X < 0, -1.0, 1.0)
    shade = light['ambient'] + 1.12 * (1 - light['ambient']) * lambert
    return Canvas(x, y, X, Y, jnp.abs(X), side, shade, view[0] / view[2], view[1] / view[2], pixel)


def head_distance(canvas: Canvas, f: dict) -> jax.Array:
    """Signed distance to the outline of the skull and jaw, negative inside."""
    down = jnp.maximum(canvas.y, 0)
    x = canvas.x + canvas.dx * 0.30 * jnp.clip(0.25 + 0.75 * canvas.y, 0, 1)
    t = jnp.where(canvas.y > 0, canvas.y / (f['jaw'] - 0.06 * canvas.dy), canvas.y)
    square = jnp.where(canvas.y > 0, f['jaw_square'], 0.35)
    width = f['head_width'] * (1 - f['jaw_taper'] * down)
    u, t2 = x / width, t * t
    value = u * u + (1 - square) * t2 + square * t2 * t2 - 1
    slope_x, slope_y = 2 * u / width, 2 * t * (1 - square) + 4 * square * t * t2
    return value * jax.lax.rsqrt(slope_x * slope_x + slope_y * slope_y + 0.05)


def express(faces: FaceParameters) -> dict[str, jax.Array]:
    """The identity's features [N, 1, 1, 1] by name, moved by the action units (after Ekman and Friesen 1978)."""
    f = {name: value[:, None, None, None] for name, value in faces.identity.items()}
    au = {name: faces.units[:, u, None, None, None] for u, name in enumerate(ACTION_UNITS)}
    # With the inner brow raised, AU4 draws the brows together but cannot lower them.
    lowering = jnp.maximum(au['AU4'] - au['AU1'], 0)
    rounded = jnp.maximum(au['AU26'] - au['AU20'], 0)
    smile = (au['AU12L'] + au['AU12R']) / 2
    f |= {name: faces.pose[name][:, None, None, None] for name in ('gaze_x', 'gaze_y')}
    return f | _express_eyes(f, au, lowering) | _express_mouth(f, au, rounded, smile) | _express_lines(f, au, lowering)


def _express_eyes(f: dict, au: dict, lowering: jax.Array) -> dict[str, jax.Array]:
    open_ = f['eye_open']
    return {
        'brow_y': f['eye_height'] - f['brow_height'] + 0.06 * lowering + 0.06 * au['AU9'] - 0.05 * au['AU2'],
        'brow_in': -0.18 * au['AU1'] + 0.15 * lowering + 0.06 * au['AU9'],
        'brow_out': -0.13 * au['AU2'] + 0.08 * jnp.maximum(au['AU1'] - au['AU2'], 0) - 0.04 * lowering,
        'brow_bend': f['brow_arch'] * (1 - 0.9 * au['AU4']) + 0.08 * jnp.maximum(au['AU2'] - au['AU4'], 0),
        'brow_x': f['eye_spacing'] - 0.045 * au['AU4'],
        'lid_up': open_ * (1 + 0.75 * au['AU5'] - 0.22 * au['AU7'] - 0.25 * au['AU6'] - 0.30 * au['AU9']),
        'lid_low': 0.72
        * open_
        * (1 + 0.25 * au['AU5'] - 0.75 * au['AU7'] * (1 - 0.4 * au['AU5']) - 1.05 * au['AU6'] - 0.45 * au['AU9']),
        'squint': jnp.maximum(au['AU6'], jnp.maximum(au['AU7'], au['AU9'])),
    }


def _express_mouth(f: dict, au: dict, rounded: jax.Array, smile: jax.Array) -> dict[str, jax.Array]:
    corner = f['mouth_rest'] + 0.17 * au['AU15'] + 0.02 * au['AU20']
    width = f['mouth_width'] * (1 + 0.30 * au['AU20'] - 0.14 * au['AU23'] - 0.26 * rounded - 0.05 * au['AU15'])
    thin = (1 - 0.75 * au['AU23']) * (1 - 0.25 * smile)
    parted = smile * smile * (0.25 + 0.75 * f['smile_opens'])
    return {
        'corner_left': corner - 0.19 * au['AU12L'] - 0.03 * au['AU14L'],
        'corner_right': corner - 0.19 * au['AU12R'] - 0.03 * au['AU14R'],
        'width_left': width * (1 + 0.34 * au['AU12L'] - 0.05 * au['AU14L']),
        'width_right': width * (1 + 0.34 * au['AU12R'] - 0.05 * au['AU14R']),
        'mouth_y': f['mouth_height'] + 0.05 * smile - 0.045 * au['AU9'] + 0.02 * au['AU26'],
        'open_up': 0.05 * rounded + 0.03 * au['AU26'] + 0.025 * parted + 0.07 * au['AU9'] * au['AU16'],
        'open_low': 0.24 * rounded + 0.14 * au['AU26'] * (1 - rounded) + 0.12 * parted + 0.055 * au['AU16'],
        'square': jnp.clip(au['AU20'] + 0.7 * au['AU16'] + 0.2 * smile, 0, 1),
        'upper': f['lip_upper'] * thin * (1 - 0.2 * au['AU9']),
        'lower': f['lip_lower'] * thin * (1 + 0.15 * au['AU16']),
        'press': au['AU23'],
        'low_teeth': jnp.clip(au['AU16'] + 0.6 * au['AU20'], 0, 1),
        'tongue': rounded,
        'jaw': f['chin'] + 0.12 * au['AU26'],
        'dimple_left': au['AU14L'],
        'dimple_right': au['AU14R'],
        'smile_left': au['AU12L'],
        'smile_right': au['AU12R'],
    }


def _express_lines(f: dict, au: dict, lowering: jax.Array) -> dict[str, jax.Array]:
    old = f['age'] * f['age']
    return {
        'forehead': jnp.clip(0.8 * au['AU1'] * (0.4 + 0.6 * au['AU2']) * (0.4 + 0.6 * f['age']) + 0.4 * old, 0, 1),
        'frown': jnp.clip(0.9 * au['AU4'] * (0.5 + 0.5 * f['age']) + 0.5 * au['AU9'] + 0.25 * old, 0, 1),
        'wrinkle': au['AU9'],
        'cheek': au['AU6'],
        'crow': jnp.clip(au['AU6'] * (0.4 + 0.6 * f['age']) + 0.3 * old, 0, 1),
        'bags': jnp.clip(0.5 * old + 0.5 * au['AU6'] + 0.3 * au['AU7'], 0, 1),
        'fold_left': jnp.clip(0.8 * au['AU12L'] + 0.8 * au['AU9'] + 0.4 * old + 0.2 * au['AU20'], 0, 1),
        'fold_right': jnp.clip(0.8 * au['AU12R'] + 0.8 * au['AU9'] + 0.4 * old + 0.2 * au['AU20'], 0, 1),
        'glabella': lowering,
    }
