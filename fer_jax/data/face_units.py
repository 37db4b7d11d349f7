"""FACS action units, and the emotions as their prototypes."""

from __future__ import annotations

import numpy as np

from fer_jax.data.dataset import EMOTIONS

# Left and right are the person's own, so AU12R moves the mouth corner on the left of the image.
ACTION_UNITS = (
    'AU1',  # inner brow raiser
    'AU2',  # outer brow raiser
    'AU4',  # brow lowerer
    'AU5',  # upper lid raiser
    'AU6',  # cheek raiser
    'AU7',  # lid tightener
    'AU9',  # nose wrinkler
    'AU12L',  # lip corner puller
    'AU12R',
    'AU14L',  # dimpler
    'AU14R',
    'AU15',  # lip corner depressor
    'AU16',  # lower lip depressor
    'AU20',  # lip stretcher
    'AU23',  # lip tightener
    'AU26',  # jaw drop
)

# EMFACS (Friesen and Ekman 1983).
PROTOTYPES = {
    'anger': ('AU4', 'AU5', 'AU7', 'AU23'),
    'contempt': ('AU12R', 'AU14R'),
    'disgust': ('AU9', 'AU15', 'AU16'),
    'fear': ('AU1', 'AU2', 'AU4', 'AU5', 'AU7', 'AU20', 'AU26'),
    'happiness': ('AU6', 'AU12L', 'AU12R'),
    'neutral': (),
    'sadness': ('AU1', 'AU4', 'AU15'),
    'surprise': ('AU1', 'AU2', 'AU5', 'AU26'),
}


def prototype_matrix() -> np.ndarray:
    """The prototypes as float32 [8 emotions, U units] of 0 and 1, in the order of EMOTIONS and ACTION_UNITS."""
    return np.array([[unit in PROTOTYPES[name] for unit in ACTION_UNITS] for name in EMOTIONS], np.float32)
