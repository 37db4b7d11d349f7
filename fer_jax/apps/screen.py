"""What a screen shows, through mss (the extra `screen`): a monitor, or a region."""

from __future__ import annotations

import importlib.util
import time

import numpy as np

from fer_jax.apps.source import Area, SourceEnded, numbers
from fer_jax.errors import UserError

_MOST = 30  # pictures per second
_GREY = 128


class Screen:
    """A part of the screen that is read. See `fer_jax.apps.source.Source`.

    Args:
        place: what stands after `screen:`: the number of a monitor (0: all of them), or LEFT,TOP,WIDTH,HEIGHT in
            pixels; '': the first monitor.

    Raises:
        UserError: if there is no such monitor or region, or no screen that can be read.
    """

    name = 'screen'

    def __init__(self, place: str = ''):
        if importlib.util.find_spec('mss') is None:
            raise UserError("the screen needs mss; install it with: pip install 'fer_jax[screen]'")
        import mss

        try:
            self._grabber = mss.MSS()
            self.area = _area(place, self._grabber.monitors)
            self._grab()
        except mss.ScreenShotError as error:
            raise UserError(f'no screen can be read here: {error} (X11 is needed, and DISPLAY)') from None
        self._count, self._next = 0, 0.0

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_) -> None:
        self._grabber.close()

    def newest(self, seconds: float) -> tuple[int, float, np.ndarray] | None:
        import mss

        pause = self._next - time.monotonic()
        time.sleep(min(max(0.0, pause), seconds))
        if pause > seconds:
            return None
        now = time.monotonic()
        self._next, self._count = now + 1 / _MOST, self._count + 1
        try:
            return self._count - 1, now, self._grab()
        except mss.ScreenShotError as error:
            raise SourceEnded(f'the screen cannot be read any more: {error}') from None

    def _grab(self) -> np.ndarray:
        left, top, width, height = self.area
        shot = self._grabber.grab({'left': left, 'top': top, 'width': width, 'height': height})
        bgrx = np.frombuffer(shot.raw, np.uint8).reshape(shot.height, shot.width, 4)
        return np.ascontiguousarray(bgrx[..., 2::-1])


def without(image: np.ndarray, area: Area, window: Area | None) -> np.ndarray:
    """The picture of an area of the screen, uint8 [H, W, 3], with a window's place in grey."""
    if window is None:
        return image
    left, top = window[0] - area[0], window[1] - area[1]
    image = image.copy()
    image[max(0, top) : max(0, top + window[3]), max(0, left) : max(0, left + window[2])] = _GREY
    return image


def _area(place: str, monitors: list[dict[str, int]]) -> Area:
    """Of what is named.

    Args:
        place: see `Screen`.
        monitors: all together, then each.
    """
    areas = [tuple(monitor[name] for name in ('left', 'top', 'width', 'height')) for monitor in monitors]
    given = numbers(place or '1')
    if len(given) == 1 and 0 <= given[0] < len(areas):
        return areas[given[0]]
    whole = areas[0]
    if len(given) == 4:
        inside = all(
            whole[axis] <= given[axis] and given[axis] + given[axis + 2] <= whole[axis] + whole[axis + 2]
            for axis in (0, 1)
        )
        if inside and min(given[2:]) > 0:
            return given
    size = f'LEFT,TOP,WIDTH,HEIGHT within {",".join(map(str, whole))}'
    there = ', '.join(f'screen:{number}' for number in range(1, len(areas)))
    raise UserError(f'screen:{place} is not there; there are {there}, screen:0 (all), or a region: screen:{size}')
