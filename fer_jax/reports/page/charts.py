"""Small drawings as SVG: axes with honest ticks, lines, bars and points, in the colours of the page's style sheet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from fer_jax.reports.page.elements import Element, tag

WIDTH, HEIGHT = 360, 232  # of the drawing's own units, which are pixels on a phone
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 20, 10, 38


def percent(value: float) -> str:
    """`62.5 %`, with as few digits as there are."""
    return f'{100 * value:.4g} %'


def plain(value: float) -> str:
    """A number of an axis."""
    return f'{value:,.4g}' if 1e-3 <= abs(value) < 1e5 or not value else f'{value:.0e}'


@dataclasses.dataclass(frozen=True)
class Axis:
    """One direction of a chart.

    Attributes:
        low, high: what it spans.
        name: its label; only that across is written, that upwards stands above the drawing.
        words: of its ticks.
        log: whether it is logarithmic.
        most: how many ticks it may have, about.
    """

    low: float
    high: float
    name: str
    words: Callable[[float], str] = plain
    log: bool = False
    most: int = 5

    def ticks(self) -> list[float]:
        from matplotlib.ticker import LogLocator, MaxNLocator  # here, since it takes a second

        locator = LogLocator(numticks=self.most) if self.log else MaxNLocator(self.most, steps=[1, 2, 2.5, 5, 10])
        slack = 1e-9 * (self.high - self.low)
        found = [float(tick) for tick in locator.tick_values(self.low, self.high)]
        return [tick for tick in found if self.low - slack <= tick <= self.high + slack]

    def share(self, values: np.ndarray | float) -> np.ndarray:
        """Where values lie, 0 at the low end and 1 at the high one."""
        low, high, values = (np.log(part) if self.log else np.asarray(part) for part in (self.low, self.high, values))
        return (values - low) / (high - low)


class Chart:
    """A drawing under way: axes first, then what lies on them, in the order of the calls."""

    def __init__(self, x: Axis, y: Axis, height: int = HEIGHT):
        self.x, self.y, self._height = x, y, height
        self._shapes: list[Element] = []

    def _at(self, x: np.ndarray | float, y: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        across, up = WIDTH - _LEFT - _RIGHT, self._height - _TOP - _BOTTOM
        return _LEFT + across * self.x.share(x), _TOP + up * (1 - self.y.share(y))

    def line(self, x: Sequence[float], y: Sequence[float], look: str) -> None:
        """A line through points."""
        points = ' '.join(
            f'{left:.1f},{top:.1f}' for left, top in zip(*self._at(np.asarray(x), np.asarray(y)), strict=True)
        )
        self._shapes.append(tag('polyline', points=points, class_=f'line {look}'))

    def points(self, x: Sequence[float], y: Sequence[float], look: str, words: Sequence[str] = ()) -> None:
        """Dots; `words` are shown under the pointer."""
        lefts, tops = self._at(np.asarray(x), np.asarray(y))
        for left, top, told in zip(lefts, tops, words or [''] * len(lefts), strict=True):
            title = tag('title', told) if told else None
            self._shapes.append(tag('circle', title, cx=f'{left:.1f}', cy=f'{top:.1f}', r='3', class_=f'dot {look}'))

    def bars(self, middle: Sequence[float], y: Sequence[float], width: float, look: str, words: Iterable[str]) -> None:
        """Upright bars from the low end of the axis."""
        for at, value, told in zip(middle, y, words, strict=True):
            (left, right), (top, bottom) = self._at(
                np.array([at - width / 2, at + width / 2]), np.array([value, self.y.low])
            )
            box = {
                'x': f'{left:.1f}',
                'y': f'{top:.1f}',
                'width': f'{right - left:.1f}',
                'height': f'{bottom - top:.1f}',
            }
            self._shapes.append(tag('rect', tag('title', told), class_=f'bar {look}', **box))

    def draw(self, name: str, title: str, description: str) -> Element:
        """The drawing.

        Args:
            name: unique on the page.
            title: what it shows, in a few words.
            description: what is to be seen on it, for those who do not see it.
        """
        told = [tag('title', title, id=f'{name}-title'), tag('desc', description, id=f'{name}-text')]
        size, labels = f'0 0 {WIDTH} {self._height}', f'{name}-title {name}-text'
        return tag('svg', told, self._axes(), self._shapes, viewBox=size, role='img', aria_labelledby=labels)

    def _axes(self) -> list[Element]:
        left, right, bottom = _LEFT, WIDTH - _RIGHT, self._height - _BOTTOM
        made = []
        for tick in self.y.ticks():
            height = f'{float(self._at(self.x.low, tick)[1]):.1f}'
            made.append(tag('line', x1=left, x2=right, y1=height, y2=height, class_='grid'))
            made.append(tag('text', self.y.words(tick), x=left - 5, y=height, dy='0.35em', class_='tick end'))
        for tick in self.x.ticks():
            place = f'{float(self._at(tick, self.y.low)[0]):.1f}'
            made.append(tag('line', x1=place, x2=place, y1=bottom, y2=bottom + 4, class_='axis'))
            made.append(tag('text', self.x.words(tick), x=place, y=bottom + 15, class_='tick middle'))
        made.append(tag('line', x1=left, x2=right, y1=bottom, y2=bottom, class_='axis'))
        made.append(tag('text', self.x.name, x=(left + right) / 2, y=bottom + 31, class_='name middle'))
        return made
