"""The large parts of a drawn face: background, hair, neck and clothes, ears and head, glasses."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fer_jax.data.face_geometry import Canvas, head_distance
from fer_jax.data.face_palette import band, blob, inside, paint
from fer_jax.data.face_parameters import FaceParameters

# Rows: cropped, short, parted, fringe, long, bob, afro, receding. Columns: how far it stands out, how far down the
# back and the sides reach, how far the fringe comes down, how strong the parting is.
_HAIR_STYLES = (
    (0.03, -0.3, -0.05, 0.00, 0.05),
    (0.09, -0.2, 0.02, 0.02, 0.20),
    (0.13, -0.1, 0.05, 0.02, 0.9),
    (0.11, 0.55, 0.22, 0.20, 0.15),
    (0.12, 1.60, 0.75, 0.0, 0.9),
    (0.15, 0.75, 0.55, 0.12, 0.30),
    (0.30, 0.25, 0.10, 0.03, 0.05),
    (0.02, -0.2, 0.00, -0.55, 0.00),
)


def _hair_style(f: dict) -> tuple[jax.Array, ...]:
    style = jnp.clip(f['hair_style'].astype(jnp.int32), 0, len(_HAIR_STYLES) - 1)
    volume, back, sides, fringe, part = (jnp.array(column)[style] for column in zip(*_HAIR_STYLES, strict=True))
    return volume * f['hair_volume'], back, sides, fringe, part * f['hair_part']


def draw_background(canvas: Canvas, palette: dict, faces: FaceParameters) -> jax.Array:
    """A plain, graded or spotted wall."""
    place = {name: value[:, None, None, None] for name, value in faces.background.items()}
    # The wall must not move with the head, or it would give the pose away.
    size = canvas.x.shape[-1]
    grid = jnp.linspace(-1, 1, size)
    x, y = grid[None, :], grid[:, None]
    graded = 0.5 + 0.4 * (x * jnp.cos(place['angle']) + y * jnp.sin(place['angle']))
    spots = jnp.zeros_like(canvas.x)
    for turn in (0.0, 2.1, 4.2):
        at_x = place['blob_x'] + 0.9 * jnp.cos(place['angle'] + turn)
        at_y = place['blob_y'] + 0.9 * jnp.sin(place['angle'] + turn)
        spots = spots + blob(x - at_x, y - at_y, place['blob_size'], place['blob_size'])
    kind = place['kind']
    mixed = jnp.where(kind < 1, 0.0, jnp.where(kind < 2, graded, jnp.minimum(1.4 * spots, 1)))
    return palette['back'] + mixed * (palette['back_2'] - palette['back'])


def _hair_colour(canvas: Canvas, palette: dict) -> jax.Array:
    """Lit hair with strands that fan out from the crown."""
    lean = 9.0 * canvas.X / (1.6 + canvas.Y * 0.6)
    strand = jnp.abs(lean - jnp.round(lean)) + 0.6 * jnp.abs(1.73 * lean - jnp.round(1.73 * lean))
    shine = blob(canvas.X, canvas.Y + 0.78, 0.6, 0.16)
    return palette['hair'] * canvas.shade * (0.86 + 0.30 * strand) + 0.10 * shine


def draw_back_hair(image: jax.Array, canvas: Canvas, f: dict, palette: dict) -> jax.Array:
    """What falls behind the head and the neck."""
    volume, back, _, _, _ = _hair_style(f)
    x, y = canvas.x - 0.12 * canvas.dx, canvas.y
    width = f['head_width'] + volume + 0.02
    below = jnp.maximum(y, 0) / jnp.maximum(back, 0.05)
    t = jnp.where(y > 0, below, y / (1 + volume))
    u = x / width
    t2, u2 = t * t, u * u
    power = jnp.where(y > 0, t2 * t2 * t2, t2)
    distance = (u2 + power - 1) * 0.4
    cover = inside(distance, canvas.pixel) * (back > -0.25)
    return paint(image, 0.62 * _hair_colour(canvas, palette), cover)


def draw_body(image: jax.Array, canvas: Canvas, f: dict, palette: dict) -> jax.Array:
    """Neck, in the shadow of the chin, and a collar."""
    x, y, pixel = canvas.x + 0.10 * canvas.dx, canvas.y, canvas.pixel
    neck = 0.60 * f['head_width'] + 0.10 * jnp.maximum(y - 0.9, 0)
    cover = inside(jnp.abs(x) - neck, pixel) * inside(0.3 - y, pixel)
    shadow = jnp.clip(0.62 + 0.5 * (y - f['jaw']), 0.55, 0.85)
    image = paint(image, palette['skin'] * shadow * canvas.shade, cover)
    aside = jnp.abs(x)
    collar = 1.22 - 0.55 * jnp.minimum(aside, 0.5) ** 2 + 0.35 * jnp.maximum(aside - 0.5, 0)
    return paint(image, palette['clothes'] * (0.8 + 0.2 * aside), inside(collar - y, pixel))


def _draw_ears(image: jax.Array, canvas: Canvas, f: dict, palette: dict) -> jax.Array:
    tall, pixel = f['ear_size'], canvas.pixel
    for side in (-1, 1):
        x = canvas.x - side * (f['head_width'] + 0.01) - 0.05 * side * canvas.dx
        y = canvas.y - 0.06
        radius = jnp.sqrt((x / 0.5) ** 2 + y * y)
        image = paint(image, palette['skin'] * 0.92 * canvas.shade, inside(radius - tall, pixel))
        image = paint(image, palette['crease'], 0.5 * inside(radius - 0.55 * tall, pixel))
    return image


def draw_head(image: jax.Array, canvas: Canvas, f: dict, palette: dict) -> jax.Array:
    """Ears, then the lit skin with its broad shadows and the blush of the cheeks."""
    image = _draw_ears(image, canvas, f, palette)
    distance, pixel = head_distance(canvas, f), canvas.pixel
    sockets = blob(canvas.A - f['eye_spacing'] + 0.04, canvas.Y - f['eye_height'] + 0.05, 0.27, 0.20)
    rim = jnp.clip(1 + distance / 0.22, 0, 1)
    cheek_y = 0.30 - 0.05 * f['cheek']
    cheeks = blob(canvas.A - 0.42, canvas.Y - cheek_y, 0.25, 0.22)
    skin = palette['skin'] * canvas.shade * (1.02 - 0.12 * sockets - 0.24 * rim * rim)
    skin = skin + 0.6 * cheeks * (palette['blush'] - palette['skin'])
    skin = skin + 0.05 * blob(canvas.X, canvas.Y + 0.55, 0.45, 0.25)
    skin = paint(skin, palette['crease'], 0.55 * band(distance, -0.6 * pixel, 0.0, pixel))
    return paint(image, skin, inside(distance, pixel))


def draw_hair(image: jax.Array, canvas: Canvas, f: dict, palette: dict) -> jax.Array:
    """The hair over the forehead and down the sides, and the shadow that it throws."""
    volume, _, sides, fringe, part = _hair_style(f)
    s = canvas.X / (f['head_width'] + 0.03)
    s2 = s * s
    apart = s - 0.4 * part
    middle = f['hairline'] + fringe + 0.38 * jnp.abs(part) * (jnp.sqrt(apart * apart + 0.01) - 0.2)
    edge = middle + (sides - middle) * jnp.minimum(s2 * s2 * s2, 1.3)
    puff = volume * jnp.clip(0.75 - canvas.y, 0.15, 1)
    # A dropping jaw does not move the hair.
    head = head_distance(canvas, f | {'jaw': f['chin']}) - puff
    cover = inside(head, canvas.pixel)
    shadow = cover * jnp.clip(1 - (canvas.Y - edge) / 0.10, 0, 1)
    image = paint(image, palette['crease'], 0.35 * shadow)
    slope = jax.lax.rsqrt(1 + 9 * s2 * s2 * s2)
    return paint(image, _hair_colour(canvas, palette), cover * inside((canvas.Y - edge) * slope, canvas.pixel))


def draw_glasses(image: jax.Array, canvas: Canvas, f: dict, palette: dict) -> jax.Array:
    """Round or square frames before the eyes of one face in five."""
    worn = (f['glasses'] < 0.2).astype(jnp.float32)
    X, Y = canvas.X + 0.07 * canvas.dx, canvas.Y + 0.07 * canvas.dy
    u, v = (jnp.abs(X) - f['eye_spacing'] - 0.01) / 0.25, (Y - f['eye_height'] - 0.02) / 0.19
    u2, v2 = u * u, v * v
    radius = jnp.sqrt(jnp.sqrt(u2 * u2 + v2 * v2 + 2 * f['glasses_round'] * u2 * v2))
    thick = 0.05 + 0.06 * f['glasses_round']
    unit = canvas.pixel / 0.22
    frame = band(radius, 1 - thick, 1 + thick, unit)
    bar = band(Y, f['eye_height'] - 0.06, f['eye_height'] - 0.02, canvas.pixel)
    bridge = bar * (jnp.abs(X) < f['eye_spacing'] - 0.2)
    temples = bar * (u > 1) * inside(head_distance(canvas, f), canvas.pixel)
    glare = 0.10 * inside(radius - 1, unit) + 0.16 * blob(u + 0.35, v + 0.4, 0.4, 0.3)
    image = paint(image, palette['white'], worn * glare)
    dark = 0.5 * palette['black'] + 0.3 * palette['brow']
    return paint(image, dark, 0.9 * worn * jnp.maximum(frame, jnp.maximum(bridge, temples)))
