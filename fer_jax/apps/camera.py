"""A camera's newest picture, through PyAV (FFmpeg's libraries; the extra `video`) and Linux's Video4Linux.

webcam:PATH may also be a film, which is played over and over at its own pace: to try things out without a camera.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from fer_jax.apps.film import UnreadableFilm, check_installed, open_film
from fer_jax.apps.source import SourceEnded
from fer_jax.data.files import printable
from fer_jax.errors import UserError

_DEVICES = 'v4l2'  # FFmpeg's name for what opens cameras
_PATIENCE = 10.0  # seconds without a picture, after which a camera counts as gone
_REASONS = {
    errno.EBUSY: 'is used by another program; close that one',
    errno.EACCES: 'may not be read by this user; on most systems members of the group video may',
}

Pictures = Iterator[Callable[[], np.ndarray]]  # of each what makes it uint8 [H, W, 3]: most are never asked for


class Camera:
    """A camera that is read in a thread, which keeps only the newest picture. See `fer_jax.apps.source.Source`.

    Args:
        place: what stands after `webcam:`: a number N for /dev/videoN, a device file, a film; '': the first camera.

    Raises:
        UserError: if there is no such camera, or it cannot be read; the message says what would be right.
    """

    name, area = 'webcam', None

    def __init__(self, place: str = ''):
        check_installed()
        path = Path(os.path.expanduser(place)) if place and not place.isdecimal() else _device(place)
        self._pictures = _play(path) if path.is_file() else _capture(path)
        self._news = threading.Condition()
        self._newest, self._ended, self._closing = None, '', False
        self._came = time.monotonic()
        self._thread = threading.Thread(target=self._read, daemon=True)  # a driver that hangs must not hold us up

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._closing = True
        self._thread.join(2)

    def newest(self, seconds: float) -> tuple[int, float, np.ndarray] | None:
        with self._news:
            self._news.wait_for(lambda: self._newest or self._ended, seconds)
            newest, self._newest = self._newest, None
        if newest:
            number, self._came, make = newest
            return number, self._came, make()
        if self._ended:
            raise SourceEnded(f'the camera ended: {self._ended}')
        if time.monotonic() - self._came > _PATIENCE:
            raise SourceEnded(f'the camera sent nothing for {_PATIENCE:.0f} s')
        return None

    def _read(self) -> None:
        import av

        ended = 'there are no more pictures'
        try:
            for number, make in enumerate(self._pictures):
                with self._news:
                    self._newest = number, time.monotonic(), make
                    self._news.notify()
                if self._closing:
                    break
        except (av.FFmpegError, OSError, UnreadableFilm) as error:
            ended = getattr(error, 'strerror', None) or str(error)
        finally:
            self._pictures.close()
        with self._news:
            self._ended = ended
            self._news.notify()


def _device(place: str) -> Path:
    """/dev/videoN; without a number the first there is."""
    devices = sorted((int(path.name[5:]), path) for path in Path('/dev').glob('video*') if path.name[5:].isdecimal())
    there = dict(devices)
    if not there:
        raise UserError('no camera is connected: there is no /dev/video0; webcam:PATH names another device, or a film')
    number = int(place) if place else devices[0][0]
    if number not in there:
        names = ', '.join(f'webcam:{number}' for number in there)
        raise UserError(f'webcam:{place}: there is no /dev/video{number}; there are {names}')
    return there[number]


def _capture(path: Path) -> Pictures:
    """A device's pictures, as they come, in the size and at the rate it is set to."""
    import av

    try:
        container = av.open(os.fspath(path), format=_DEVICES)
        stream = container.streams.video[0]
    except (av.FFmpegError, OSError, IndexError) as error:
        shown, code = printable(path), getattr(error, 'errno', None)
        if code == errno.ENOENT:
            wanted = 'a number, a device such as /dev/video0 or a film is wanted'
            raise UserError(f'webcam:{shown} does not exist; {wanted}') from None
        reason = _REASONS.get(code, f'is no camera ({getattr(error, "strerror", None) or error})')
        raise UserError(f'webcam:{shown} {reason}') from None
    return _decode(container, stream)


def _decode(container, stream) -> Pictures:
    import av

    with container:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.InvalidDataError:  # cameras send a torn picture now and then, often as their first
                continue
            for frame in frames:
                yield lambda frame=frame: frame.to_ndarray(format='rgb24')


def _play(path: Path) -> Pictures:
    """A film's pictures, each when its time has come, over and over."""
    try:
        with open_film(path) as film:
            next(film.frames(), None)
    except UnreadableFilm as error:
        raise UserError(f'webcam:{printable(path)} is neither a camera nor a film ({error})') from None
    return _repeat(path)


def _repeat(path: Path) -> Pictures:
    start = time.monotonic()
    while True:
        with open_film(path) as film:
            offset = None
            for _, offset, image in film.frames():
                early = start + offset - time.monotonic()
                time.sleep(max(0.0, early))
                start -= min(0.0, early)  # held up, it goes on from there
                yield lambda image=image: image
            if offset is None:
                raise UnreadableFilm('it has no frame')
            start += offset + 1 / float(film.rate)
