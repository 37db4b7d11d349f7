"""A saliency map laid over what a network saw."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

_HEAT = 0.55  # how much of the heat is laid over the face


def heat_over(
    seen: UInt8[np.ndarray, 'S S C'], heat: Float[np.ndarray, 's s'], side: int
) -> UInt8[np.ndarray, 'side side 3']:
    """The map in colours over the face in grey.

    Args:
        seen: what the network saw.
        heat: from 0 to 1, of the same window in any resolution.
        side: of the picture, in pixels.
    """
    face = Image.fromarray(seen.squeeze(-1) if seen.shape[-1] == 1 else seen).convert('RGB')
    grey = np.asarray(face.resize((side, side), Image.Resampling.BICUBIC), float).mean(-1, keepdims=True)
    heat = np.asarray(Image.fromarray(heat.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC))
    import matplotlib  # here, since it takes a second

    colours = 255 * matplotlib.colormaps['inferno'](np.clip(heat, 0, 1))[..., :3]
    return np.rint((1 - _HEAT) * grey + _HEAT * colours).clip(0, 255).astype(np.uint8)
