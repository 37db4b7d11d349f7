"""Faces drawn into their picture: box, points, emoji and emotion, probabilities as bars."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fer_jax.apps.recognized import RecognizedFace
from fer_jax.reports.saliency import heat_over
from fer_jax.reports.timeline import class_colours

SMALLEST, LARGEST = 960, 1920  # pixels of a drawn picture's longer side; pictures are resized into these
_INK, _PAPER, _UNSURE = (255, 255, 255), (20, 22, 26, 190), '#5F6368'
_SALIENCY_SIDE = 240  # pixels

Rect = tuple[float, float, float, float]  # left, top, right, bottom


def draw_faces(image: np.ndarray, faces: Sequence[RecognizedFace], labels: Sequence[str] = ()) -> np.ndarray:
    """The picture with its faces, uint8 [h, w, 3], the longer side from SMALLEST to LARGEST pixels.

    Over the box stand emoji and emotion (only the word where the font, matplotlib's DejaVu Sans, has no such emoji) and
    its probability, with a question mark where it is unsure. Beside the box, where room is left, a panel names all
    probabilities; otherwise narrow bars without names, in the classes' order, stand in the box.

    Args:
        image: uint8 [H, W], [H, W, 1] or [H, W, 3].
        faces: in its pixels.
        labels: words to go before each emotion.
    """
    picture, scale = _resized(image)
    if not faces:
        return np.asarray(picture)
    page = _Page(picture, scale, tuple(faces[0].probabilities))
    labels = labels or [''] * len(faces)
    order = sorted(range(len(faces)), key=lambda index: -faces[index].box[2:].prod())
    for index in order:
        page.outline(faces[index])
    for index in order:
        page.title(faces[index], labels[index])
    for index in order:
        page.bars(faces[index])
    return np.asarray(page.picture.convert('RGB'))


def draw_saliency(face: RecognizedFace) -> np.ndarray:
    """What the networks saw of the face and, beside it, where they saw the emotion; uint8 [h, w, 3]."""
    seen = Image.fromarray(face.seen.squeeze()).convert('RGB')
    seen = np.asarray(seen.resize((_SALIENCY_SIDE, _SALIENCY_SIDE), Image.Resampling.BICUBIC))
    gap = np.full((_SALIENCY_SIDE, 8, 3), 255, np.uint8)
    return np.concatenate([seen, gap, heat_over(face.seen, face.saliency, _SALIENCY_SIDE)], 1)


def _resized(image: np.ndarray) -> tuple[Image.Image, float]:
    grey = image.ndim == 2 or image.shape[2] == 1
    picture = Image.fromarray(image.reshape(image.shape[:2]) if grey else image)
    longer = max(picture.size)
    scale = min(max(longer, SMALLEST), LARGEST) / longer
    if scale != 1:
        size = [max(1, round(side * scale)) for side in picture.size]
        picture = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    return picture.convert('RGB'), scale


@dataclasses.dataclass
class _Page:
    """The drawing under way."""

    picture: Image.Image
    scale: float
    names: tuple[str, ...]

    def __post_init__(self):
        self.picture = self.picture.copy()
        self.draw = ImageDraw.Draw(self.picture, 'RGBA')
        self.unit = max(12, round(max(self.picture.size) / 72))  # pixels, the size of letters
        self.font, self.large = _font(self.unit), _font(round(1.3 * self.unit))
        self.colours = class_colours(self.names)
        self.line = max(2, self.unit // 7)
        self.taken: list[Rect] = []

    def outline(self, face: RecognizedFace) -> None:
        box, colour = self._box(face), self._colour(face)
        self.draw.rectangle((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1), outline=(0, 0, 0, 120))
        self.draw.rectangle(box, outline=colour, width=self.line)
        radius = max(1.0, min(self.line, (box[2] - box[0]) / 30))
        for x, y in face.points * self.scale:
            self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        self.taken.append(box)

    def title(self, face: RecognizedFace, label: str) -> None:
        """Above the box; below where there is no room; in small pictures of many faces in letters as small as need."""
        words = ' '.join(filter(None, (label, f'{face.emotion}{"?" * face.unsure}', f'{100 * face.confidence:.0f} %')))
        emoji = face.emoji if face.emoji and _has(face.emoji) else ''
        box = self._box(face)
        if box[2] - box[0] < 5 * self.unit:  # small faces stand close together
            words = f'{"?" * face.unsure}{100 * face.confidence:.0f} %' if emoji else face.emotion
            words = f'{label} {words}' if label else words
        pad = self.unit // 4
        emoji_width = self.large.getlength(emoji) + pad if emoji else 0
        width, height = emoji_width + self.font.getlength(words) + 2 * pad, round(1.6 * self.unit)
        left = min(max(0, box[0] - self.line / 2), max(0, self.picture.width - width))
        tops = (box[1] - height, box[3], max(0, box[1]))
        tag = next(
            (tag for tag in ((left, top, left + width, top + height) for top in tops) if self._free(tag, box)),
            (left, max(0, tops[0]), left + width, max(0, tops[0]) + height),
        )
        self.draw.rectangle(tag, fill=self._colour(face))
        middle = (tag[1] + tag[3]) / 2
        if emoji:
            self.draw.text((tag[0] + pad, middle), emoji, _INK, self.large, anchor='lm')
        self.draw.text((tag[0] + pad + emoji_width, middle), words, _INK, self.font, anchor='lm')
        self.taken.append(tag)

    def bars(self, face: RecognizedFace) -> None:
        """A panel of names and bars to the right, left, below or above; in the box where all is taken."""
        box, gap = self._box(face), self.unit // 2
        names = max(self.font.getlength(name) for name in self.names)
        width, height = names + 8 * self.unit, (1.3 * len(self.names) + 0.6) * self.unit
        top = min(max(0, box[1]), max(0, self.picture.height - height))
        left = min(max(0, box[0]), max(0, self.picture.width - width))
        below = box[3] + gap + (round(1.6 * self.unit) if self._tagged_below(box) else 0)
        places = (
            (box[2] + gap, top),
            (box[0] - gap - width, top),
            (left, below),
            (left, box[1] - 2.2 * self.unit - height),
        )
        panels = ((x, y, x + width, y + height) for x, y in places)
        panel = next((panel for panel in panels if self._free(panel)), None)
        if panel is None or box[2] - box[0] < 3 * self.unit:
            self._narrow_bars(face, box)
            return
        self.taken.append(panel)
        self.draw.rounded_rectangle(panel, self.unit // 3, fill=_PAPER)
        for row, name in enumerate(self.names):
            y = panel[1] + (0.95 + 1.3 * row) * self.unit
            share = face.probabilities[name]
            start = panel[0] + names + 0.9 * self.unit
            self.draw.text((start - 0.4 * self.unit, y), name, _INK, self.font, anchor='rm')
            self._bar(
                (start, y - 0.4 * self.unit, start + 4 * self.unit, y + 0.4 * self.unit), share, self.colours[name]
            )
            self.draw.text((panel[2] - 0.3 * self.unit, y), f'{100 * share:.0f} %', _INK, self.font, anchor='rm')

    def _bar(self, place: Rect, share: float, colour: str) -> None:
        left, top, right, bottom = place
        self.draw.rectangle(place, fill=(255, 255, 255, 40))
        if share * (right - left) >= 0.5:
            self.draw.rectangle((left, top, left + share * (right - left), bottom), fill=colour)

    def _narrow_bars(self, face: RecognizedFace, box: Rect) -> None:
        left, right, bottom = box[0] + self.line, box[2] - self.line, box[3] - self.line
        height, step = (box[3] - box[1]) / 4, (right - left) / len(self.names)
        self.draw.rectangle((left, bottom - height, right, bottom), fill=(20, 22, 26, 110))
        for index, name in enumerate(self.names):
            start, share = left + index * step, face.probabilities[name]
            if share * height >= 0.5:
                bar = (start, bottom - share * height, start + max(step - 1, 0), bottom)
                self.draw.rectangle(bar, fill=self.colours[name])

    def _box(self, face: RecognizedFace) -> Rect:
        left, top, width, height = (float(value) * self.scale for value in face.box)
        return left, top, left + width, top + height

    def _colour(self, face: RecognizedFace) -> str:
        return _UNSURE if face.unsure else self.colours[face.emotion]

    def _tagged_below(self, box: Rect) -> bool:
        return any(abs(other[1] - box[3]) < 1 and other[0] < box[2] and other[2] > box[0] for other in self.taken)

    def _free(self, place: Rect, own: Rect | None = None) -> bool:
        """Whether a place lies in the picture and over no other; what is `own` may be covered."""
        if place[0] < 0 or place[1] < 0 or place[2] > self.picture.width or place[3] > self.picture.height:
            return False
        return all(
            other == own or place[2] <= other[0] or place[0] >= other[2] or place[3] <= other[1] or place[1] >= other[3]
            for other in self.taken
        )


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib  # here, since it takes long, and only for its font

    path = Path(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')
    return ImageFont.truetype(path, size)


@functools.cache
def _has(character: str) -> bool:
    """Whether the font has it: what it has not looks like what no font has."""
    font = _font(32)
    return bytes(font.getmask(character)) != bytes(font.getmask('\U0010fffe'))
