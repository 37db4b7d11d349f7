"""What a drawn face is made of: tables of ranges, and draws from them that depend on (seed, index) alone."""

from __future__ import annotations

from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

# Lengths are in half head heights, y points down, the middle of the head is (0, 0). Each value is uniform in its range.
IDENTITY = {
    'head_width': (0.68, 0.80),
    'chin': (0.94, 1.05),
    'jaw_square': (-0.25, 0.75),
    'jaw_taper': (0.05, 0.26),
    'skin_tone': (0.0, 5.0),
    'skin_warmth': (-1.0, 1.0),
    'lip_red': (0.2, 1.0),
    'hair_style': (0.0, 8.0),
    'hair_tone': (0.0, 5.0),
    'hair_volume': (0.7, 1.3),
    'hair_part': (-1.0, 1.0),
    'hairline': (-0.80, -0.66),
    'eye_spacing': (0.31, 0.36),
    'eye_height': (-0.12, -0.04),
    'eye_width': (0.16, 0.19),
    'eye_open': (0.088, 0.112),
    'eye_tilt': (-0.14, 0.10),
    'iris_tone': (0.0, 4.0),
    'iris_size': (0.068, 0.082),
    'lashes': (0.0, 1.0),
    'brow_height': (0.20, 0.27),
    'brow_thickness': (0.034, 0.058),
    'brow_arch': (0.02, 0.06),
    'brow_tilt': (-0.02, 0.02),
    'nose_tip': (0.24, 0.33),
    'nose_width': (0.11, 0.16),
    'nose_depth': (0.14, 0.24),
    'mouth_height': (0.57, 0.64),
    'mouth_width': (0.24, 0.30),
    'mouth_rest': (-0.018, 0.018),
    'lip_upper': (0.030, 0.055),
    'lip_lower': (0.040, 0.075),
    'smile_opens': (0.0, 1.0),
    'age': (0.0, 1.0),
    'glasses': (0.0, 1.0),
    'glasses_round': (0.0, 1.0),
    'beard': (0.0, 1.0),
    'ear_size': (0.12, 0.17),
}
POSE = {  # radians; yaw turns to the right of the image, pitch upwards, roll clockwise
    'yaw': (-0.24, 0.24),
    'pitch': (-0.12, 0.12),
    'roll': (-0.10, 0.10),
    'shift_x': (-0.045, 0.045),
    'shift_y': (-0.04, 0.04),
    'scale': (0.94, 1.06),
    'gaze_x': (-0.04, 0.04),
    'gaze_y': (-0.012, 0.02),
}
LIGHT = {  # azimuth and elevation in radians from the viewer's direction
    'azimuth': (-1.1, 1.1),
    'elevation': (-0.2, 0.9),
    'ambient': (0.55, 0.9),
    'warmth': (-0.05, 0.05),
    'contrast': (0.85, 1.15),
    'brightness': (-0.06, 0.06),
}
BACKGROUND = {
    'kind': (0.0, 3.0),  # plain, gradient, blobs
    'angle': (0.0, 6.2832),
    'red': (0.1, 0.9),
    'green': (0.1, 0.9),
    'blue': (0.1, 0.9),
    'red_2': (0.1, 0.9),
    'green_2': (0.1, 0.9),
    'blue_2': (0.1, 0.9),
    'blob_x': (-1.0, 1.0),
    'blob_y': (-1.0, 1.0),
    'blob_size': (0.3, 0.9),
    'clothes_red': (0.05, 0.9),
    'clothes_green': (0.05, 0.9),
    'clothes_blue': (0.05, 0.9),
}
CAMERA = {'blur': (0.0, 0.010), 'noise': (0.0, 0.02)}  # Gaussian sigmas: in image widths, in units of white

_IDENTITY_STREAM, _IMAGE_STREAM = 1, 2

Values = Mapping[str, Float[Array, ' n']]


@flax.struct.dataclass
class FaceParameters:
    """Everything that `render` draws; each array has the batch as its first dimension.

    Attributes:
        identity, pose, light, background: float32 [N] by name, see the tables of this module.
        blur, noise: float32 [N], see CAMERA.
        noise_seed: uint32 [N], which noise.
        units: float32 [N, U] in 0..1, activations of ACTION_UNITS.
    """

    identity: Values
    pose: Values
    light: Values
    background: Values
    blur: Float[Array, ' n']
    noise: Float[Array, ' n']
    noise_seed: UInt32[Array, ' n']
    units: Float[Array, 'n u']


def stream_key(seed: int | jax.Array, stream: int) -> jax.Array:
    """The typed key of one independent stream of draws."""
    return jax.random.fold_in(jax.random.key(seed), stream)


def draw_uniform(key: jax.Array, indices_N: UInt32[Array, ' n'], count: int) -> Float[Array, 'n count']:
    """`count` uniforms in 0..1 per index; a row depends on its own index only."""
    return jax.vmap(lambda index: jax.random.uniform(jax.random.fold_in(key, index), (count,)))(indices_N)


def _draw_table(table: Mapping[str, tuple[float, float]], uniform_NV: Float[Array, 'n v']) -> Values:
    return {name: low + (high - low) * uniform_NV[:, v] for v, (name, (low, high)) in enumerate(table.items())}


def draw_faces(
    seed: int | jax.Array,
    subjects_N: UInt32[Array, ' n'],
    indices_N: UInt32[Array, ' n'],
    units_NU: Float[Array, 'n u'],
) -> FaceParameters:
    """Faces whose identity depends on (seed, subject), and all else on (seed, index)."""
    image_key = stream_key(seed, _IMAGE_STREAM)
    keys = [jax.random.fold_in(image_key, part) for part in range(5)]
    tables = (POSE, LIGHT, BACKGROUND, CAMERA, IDENTITY)
    # In one program, for which XLA needs a fraction of the time: the first numbers of a longer row are those of a
    # shorter one.
    uniform_TNV = jax.vmap(draw_uniform, (0, 0, None))(
        jnp.stack([*keys[:4], stream_key(seed, _IDENTITY_STREAM)]),
        jnp.stack([*[indices_N] * 4, subjects_N]),
        max(map(len, tables)),
    )
    pose, light, background, camera, identity = map(_draw_table, tables, uniform_TNV)
    noise_seed = jax.vmap(lambda index: jax.random.bits(jax.random.fold_in(keys[4], index), (), jnp.uint32))(indices_N)
    return FaceParameters(identity, pose, light, background, camera['blur'], camera['noise'], noise_seed, units_NU)
