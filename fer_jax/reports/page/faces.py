"""Faces and saliency maps as pictures inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from fer_jax.reports.page.elements import Element, tag
from fer_jax.reports.page.workdirs import Workdir
from fer_jax.reports.saliency import heat_over

_KEPT = 96  # pixels of a side, up to which a face is in the page as it is
_SIDE = 144  # of a map, and of larger faces
_PLACES = (('upper left', 'upper middle', 'upper right'), ('left', 'middle', 'right'))
_PLACES += (('lower left', 'lower middle', 'lower right'),)


class Faces:
    """The pictures that the mistakes files of some workdirs hold, by id."""

    def __init__(self, workdirs: Sequence[Workdir]):
        self._images = {}
        for workdir in workdirs:
            if workdir.mistakes is not None:
                self._images |= dict(zip(workdir.mistakes.ids.tolist(), workdir.mistakes.images, strict=True))

    def face(self, identity: str, alt: str) -> Element:
        """The face, or words in its place where no file holds it."""
        image = self._images.get(identity)
        if image is None:
            return tag('span', 'no picture', class_='no-picture')
        return picture(image, alt)


def picture(image: UInt8[np.ndarray, 'H W C'], alt: str) -> Element:
    """A face as an element."""
    made = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    small = max(made.size) <= _KEPT
    if not small:
        made = made.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    return tag('img', src=data_url(made, 'PNG' if small else 'JPEG'), alt=alt, width=_SIDE, height=_SIDE)


def map_picture(image: UInt8[np.ndarray, 'H W C'], heat: Float[np.ndarray, 'S S'], alt: str) -> Element:
    """A saliency map over what the network saw of the face, its central window."""
    side = len(heat)
    start = (len(image) - side) // 2
    seen = image[start : start + side, start : start + side]
    return tag(
        'img', src=data_url(Image.fromarray(heat_over(seen, heat, _SIDE)), 'JPEG'), alt=alt, width=_SIDE, height=_SIDE
    )


def place_in_words(heat: Float[np.ndarray, 'S S']) -> str:
    """Where a map is strongest, as one looks at it: `upper left`; '' where nothing speaks for the class."""
    if not heat.max() > 0:
        return ''
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    return _PLACES[3 * row // len(heat)][3 * column // len(heat)]


def data_url(made: Image.Image, form: str) -> str:
    """A picture as a URL that holds it."""
    file = io.BytesIO()
    made.save(file, form, **({'optimize': True} if form == 'PNG' else {'quality': 88}))
    return f'data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}'
