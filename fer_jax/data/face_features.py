"""The features of a drawn face that carry its expression: lines, nose, mouth, eyes, brows; and a beard."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fer_jax.data.face_geometry import Canvas, head_distance
from fer_jax.data.face_palette import band, blob, inside, paint, window


def draw_lines(image: jax.Array, canvas: Canvas, f: dict, palette: dict) -> jax.Array:
    """Wrinkles of age and of expression: forehead, frown, crow's feet, nose root, bags under the eyes."""
    A, X, Y, pixel = canvas.A, canvas.X, canvas.Y, canvas.pixel
    dark = jnp.zeros_like(X)
    top = f['eye_height'] - f['brow_height'] - 0.13
    for k in range(3):
        line = top - 0.075 * k + 0.05 * A * A
        dark = dark + f['forehead'] * band(Y, line - 0.008, line + 0.008, pixel) * window(A, -0.40, 0.40)
    brow_gap = window(Y, f['brow_y'] - 0.04, f['eye_height'] + 0.02)
    frown_x = 0.065 - 0.015 * f['frown']
    dark = dark + 1.1 * f['frown'] * band(A, frown_x - 0.011, frown_x + 0.011, pixel) * brow_gap
    u = A - f['eye_spacing'] - f['eye_width'] - 0.02
    for slope in (-0.45, 0.0, 0.45):
        line = f['eye_height'] + slope * u
        dark = dark + f['crow'] * band(Y, line - 0.008, line + 0.008, pixel) * window(u, 0.0, 0.15)
    for k in range(3):
        line = f['eye_height'] + 0.05 + 0.06 * k - 0.5 * A
        dark = dark + f['wrinkle'] * band(Y, line - 0.011, line + 0.011, pixel) * window(A, -0.13, 0.13)
    eye = (A - f['eye_spacing']) / f['eye_width']
    bag = f['eye_height'] + f['lid_low'] + 0.055 - 0.03 * f['cheek'] - 0.05 * eye * eye
    dark = dark + 0.8 * f['bags'] * band(Y, bag - 0.012, bag + 0.012, pixel) * window(eye, -1.0, 1.0)
    return paint(image, palette['crease'] * canvas.shade, jnp.minimum(0.75 * dark, 1))


def draw_beard(image: jax.Array, canvas: Canvas, f: dict, palette: dict) -> jax.Array:
    """Stubble to full beard on one face in five of those with short hair."""
    short = (f['hair_style'] < 3) | (f['hair_style'] >= 6)
    worn = jnp.clip((f['beard'] - 0.8) * 6, 0, 0.85) * short
    out = canvas.A / 0.68
    grown = jnp.clip((canvas.Y - 0.60 + 0.52 * out * out * out) / 0.12, 0, 1)
    middle, half = f['mouth_y'] - f['open_up'] - 0.11 + 0.5 * canvas.A**2, 0.035 * (1 - (canvas.A / 0.25) ** 2)
    moustache = band(canvas.Y, middle - half, middle + half, canvas.pixel)
    cover = jnp.maximum(grown, moustache) * jnp.clip(-head_distance(canvas, f) / 0.05, 0, 1)
    return paint(image, palette['brow'] * canvas.shade, worn * cover)


def draw_nose(image: jax.Array, canvas: Canvas, f: dict, palette: dict) -> jax.Array:
    """Bridge, tip, wings and nostrils; it stands out, so it leans over the cheek when the head turns."""
    rise = jnp.clip((canvas.Y - f['eye_height'] + 0.05) / (f['nose_tip'] - f['eye_height'] + 0.05), 0, 1)
    out = f['nose_depth'] * rise
    X, Y = canvas.X + out * canvas.dx, canvas.Y + out * canvas.dy
    A = jnp.abs(X)
    wide, tip = f['nose_width'] * (1 + 0.18 * f['wrinkle']), f['nose_tip'] - 0.05 * f['wrinkle']
    lit = jnp.sign(X) * 0.5 + 0.5
    bridge_x = 0.05 + 0.5 * wide * rise * rise
    flank = blob(A - bridge_x, Y - 0.5 * (tip + f['eye_height']), 0.07, 0.30)
    image = paint(image, palette['crease'] * canvas.shade, flank * (0.10 + 0.18 * lit))
    gleam = 0.22 * blob(X, Y - 0.05, 0.05, 0.30) + 0.30 * blob(X, Y - tip + 0.05, 0.08, 0.08)
    image = paint(image, palette['white'], gleam)
    wing = jnp.sqrt((A - 0.72 * wide) ** 2 + (Y - tip) ** 2)
    edge = band(wing, 0.43 * wide, 0.43 * wide + 0.018, canvas.pixel) * (0.70 * wide < A) * (tip + 0.035 > Y)
    base = tip + 0.055 - 0.5 * A * A
    under = band(Y, base - 0.009, base + 0.011, canvas.pixel) * window(A, -0.75 * wide, 0.75 * wide)
    nostril = blob(A - 0.48 * wide, Y - tip - 0.028, 0.42 * wide, 0.042)
    image = paint(image, palette['crease'] * canvas.shade, 0.20 * blob(X, Y - tip - 0.09, 1.3 * wide, 0.08))
    image = paint(image, palette['crease'] * canvas.shade, jnp.minimum(0.75 * edge + 0.5 * under, 1))
    return paint(image, 0.5 * palette['crease'], jnp.minimum(1.4 * nostril, 0.9))


def _draw_folds(
    image: jax.Array, canvas: Canvas, f: dict, palette: dict, corner: jax.Array, width: jax.Array
) -> jax.Array:
    """The furrows from the nose to the mouth, and the dimples beside it."""
    left = canvas.side > 0
    strength = jnp.where(left, f['fold_left'], f['fold_right'])
    dimple = jnp.where(left, f['dimple_left'], f['dimple_right'])
    smile = jnp.where(left, f['smile_left'], f['smile_right'])
    start_y, end_y = f['nose_tip'] - 0.08 - 0.04 * f['wrinkle'], f['mouth_y'] + 0.7 * corner + 0.02
    t = (canvas.Y - start_y) / (end_y - start_y)
    start_x, end_x = f['nose_width'] + 0.04, width + 0.10
    line = start_x + (end_x - start_x) * t + (0.10 + 0.06 * smile) * t * (1 - t)
    slope = jax.lax.rsqrt(1 + ((end_x - start_x) / (end_y - start_y)) ** 2)
    cover = band((canvas.A - line) * slope, -0.013, 0.013, canvas.pixel) * jnp.minimum(1.5 * window(t, 0.0, 1.0), 1)
    soft = blob((canvas.A - line) * slope, 0 * t, 0.07, 1.0) * window(t, 0.0, 1.0)
    image = paint(image, palette['crease'] * canvas.shade, strength * jnp.minimum(0.75 * cover + 0.22 * soft, 1))
    puff = blob(canvas.A - 0.42, canvas.Y - 0.27 + 0.06 * f['cheek'], 0.17, 0.12)
    image = paint(image, palette['white'], 0.22 * puff * jnp.maximum(smile, f['cheek']))
    pit = blob(canvas.A - width - 0.055, canvas.Y - f['mouth_y'] - corner, 0.035, 0.085)
    return paint(image, palette['crease'] * 0.8, jnp.minimum(1.5 * dimple * pit, 0.9))


def draw_mouth(image: jax.Array, canvas: Canvas, f: dict, palette: dict) -> jax.Array:
    """Lips around an opening with teeth and tongue; each side's corner moves by itself."""
    left, pixel, Y = canvas.side > 0, canvas.pixel, canvas.Y
    corner = jnp.where(left, f['corner_left'], f['corner_right'])
    width = jnp.where(left, f['width_left'], f['width_right'])
    image = _draw_folds(image, canvas, f, palette, corner, width)
    s = canvas.A / width
    s2 = s * s
    middle = f['mouth_y'] + corner * s2
    arc = jnp.maximum(1 - s2 * (1 - f['square'] + f['square'] * s2), 0)
    bow = arc * (1 - 0.3 * jnp.maximum(1 - (canvas.X / 0.09) ** 2, 0))
    unit = pixel * jnp.sqrt(1 + (2 * corner * s / width) ** 2)
    top, bottom = middle - f['open_up'] * arc, middle + f['open_low'] * arc
    low_edge = bottom + f['lower'] * arc
    below = Y - f['mouth_y'] - f['open_low'] - f['lower'] - 0.05
    image = paint(image, palette['crease'], 0.32 * blob(canvas.X, below, 0.20, 0.05))
    lit = palette['lips'] * canvas.shade
    image = paint(image, 0.86 * lit, band(Y, top - f['upper'] * bow, middle, unit))
    image = paint(image, lit, band(Y, middle, low_edge, unit))
    image = paint(image, palette['white'], 0.25 * blob(canvas.X, Y - bottom - 0.45 * f['lower'], 0.15, 0.03))
    image = paint(image, palette['mouth'], band(Y, top, bottom, unit))
    depth = f['open_low'] + f['open_up']
    tongue = blob(canvas.X, Y - f['mouth_y'] - f['open_low'], 0.7 * width, 0.45 * depth + 0.01)
    image = paint(image, palette['tongue'], jnp.minimum(2 * tongue, 1) * f['tongue'] * band(Y, top, bottom, unit))
    teeth = jnp.minimum(top + 0.015 + 0.075 * arc * (1 - 0.35 * f['tongue']), bottom)
    image = paint(image, palette['teeth'], 0.95 * band(Y, top, teeth, unit))
    low_teeth = jnp.maximum(bottom - 0.065 * arc, top)
    image = paint(image, palette['teeth'], 0.85 * f['low_teeth'] * band(Y, low_teeth, bottom, unit))
    closed = jnp.clip(1 - depth / 0.06, 0.25, 1)
    line = jnp.where(s < 1.06, band(Y, middle - 0.016, middle + 0.012, unit), 0)
    image = paint(image, palette['mouth'] * 0.6, (0.6 + 0.35 * f['press']) * closed * line)
    return paint(image, palette['crease'] * 0.7, 0.55 * blob(canvas.A - width, Y - f['mouth_y'] - corner, 0.045, 0.045))


def draw_eyes(image: jax.Array, canvas: Canvas, f: dict, palette: dict) -> jax.Array:
    """White, iris, pupil and glint between two lids, with lashes and the crease above."""
    pixel, out = canvas.pixel, canvas.A - f['eye_spacing']
    u = out / f['eye_width']
    v = canvas.Y - f['eye_height'] - f['eye_tilt'] * out
    arc = jnp.maximum(1 - u * u, 0)
    up, low = -f['lid_up'] * arc * (1 - 0.15 * u), f['lid_low'] * arc * (1 + 0.15 * u)
    opened = band(v, up, low, pixel)
    lidded = (f['lid_up'] + 0.045) * arc
    image = paint(image, palette['skin'] * 0.84 * canvas.shade, 0.6 * band(v, -lidded, up, pixel))
    under_lid = 1 - 0.25 * jnp.clip(1 - (v - up) / 0.05, 0, 1)
    image = paint(image, palette['white'] * (0.45 + 0.55 * jnp.minimum(canvas.shade, 1)) * under_lid, opened)
    image = paint(image, palette['blush'], opened * 0.7 * blob(u + 0.92, v, 0.22, 0.06))
    x, y = out - canvas.side * f['gaze_x'], v - f['gaze_y'] + 0.008
    radius = jnp.sqrt(x * x + y * y)
    iris = palette['iris'] * (0.75 + 0.6 * jnp.clip(y / f['iris_size'], -0.3, 0.7))
    image = paint(image, iris, opened * inside(radius - f['iris_size'], pixel))
    image = paint(image, palette['black'], 0.5 * opened * band(radius, f['iris_size'] - 0.014, f['iris_size'], pixel))
    image = paint(image, palette['black'], opened * inside(radius - 0.45 * f['iris_size'], pixel))
    glint = blob(x * canvas.side + 0.028, y + 0.028, 0.03, 0.03)
    image = paint(image, palette['white'], opened * jnp.minimum(1.6 * glint, 1))
    on_lid = (u > -1.02) & (u < 1.08)
    upper = band(v, up - 0.020 - 0.012 * f['lashes'] * (0.6 + 0.4 * u), up + 0.006, pixel) * on_lid
    image = paint(image, 0.5 * palette['brow'], 0.95 * upper)
    crease = band(v, -lidded - 0.012, -lidded + 0.004, pixel) * window(u, -0.95, 1.05)
    image = paint(image, palette['crease'] * canvas.shade, 0.6 * crease)
    lower = band(v, low - 0.002, low + 0.012, pixel) * on_lid
    return paint(image, palette['crease'] * 0.8, (0.45 + 0.45 * f['squint']) * lower)


def draw_brows(image: jax.Array, canvas: Canvas, f: dict, palette: dict) -> jax.Array:
    """Tapered brows; their inner and outer ends move by themselves."""
    u = (canvas.A - f['brow_x']) / 0.215
    inner, outer = jnp.maximum(1 - u, 0) / 2, jnp.maximum(1 + u, 0) / 2
    tilt = f['brow_in'] * inner * inner + f['brow_out'] * outer * outer
    line = f['brow_y'] + tilt - f['brow_bend'] * (1 - u * u) + f['brow_tilt'] * u
    slope = (f['brow_out'] * outer - f['brow_in'] * inner + 2 * f['brow_bend'] * u + f['brow_tilt']) / 0.215
    unit = canvas.pixel * jnp.sqrt(1 + slope * slope)
    half = f['brow_thickness'] * (1 - 0.65 * jnp.clip(0.4 + 0.6 * u, 0, 1))
    ends = jnp.clip((1 - jnp.abs(u)) / 0.14, 0, 1)
    shadow = window(canvas.Y, f['brow_y'] - 0.02, f['eye_height']) * blob(canvas.A - 0.16, 0 * u, 0.16, 1.0)
    image = paint(image, palette['crease'], 0.35 * f['glabella'] * shadow)
    cover = 0.92 * ends * band(canvas.Y, line - half, line + half, unit)
    return paint(image, palette['brow'] * (0.6 + 0.4 * canvas.shade), cover)
