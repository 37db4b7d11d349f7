"""Films, frame by frame, through PyAV (FFmpeg's libraries; the extra `video`)."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from fer_jax.data.pixels import MAX_PIXELS
from fer_jax.errors import UserError

# Containers of films alone: a playlist or a list of pictures could name other files, or hosts.
_CONTAINERS = 'mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,asf,flv,ogg,mpegvideo'
_CLOCK = Fraction(1, 90_000)  # of what is written, in seconds


class UnreadableFilm(ValueError):
    """A file that is no film, or a damaged one; the message says what."""


def check_installed() -> None:
    """Raises UserError if PyAV is not there."""
    if importlib.util.find_spec('av') is None:
        raise UserError("films need PyAV; install it with: pip install 'fer_jax[video]'")


class Film:
    """A film that is read.

    Attributes:
        width, height: of its frames, upright, in pixels.
        rate: frames per second, on average.
        count: of its frames, as the file says, perhaps 0; only reading shows how many there are.
    """

    def __init__(self, container):
        self._container = container
        self._stream = container.streams.video[0]
        self._stream.thread_type = 'AUTO'
        self.rate = Fraction(self._stream.average_rate or self._stream.guessed_rate or 25)
        self.count = int(self._stream.frames)

    def frames(self) -> Iterator[tuple[int, float, np.ndarray]]:
        """Number, time in seconds from the first frame's, and uint8 [H, W, 3] of each frame, upright.

        Raises:
            UnreadableFilm: on a damaged film, or one with more than MAX_PIXELS in a frame.
        """
        import av

        start, before = None, -1.0
        try:
            for index, frame in enumerate(self._container.decode(self._stream)):
                if frame.width * frame.height > MAX_PIXELS:
                    raise UnreadableFilm(f'more than {MAX_PIXELS:,} pixels')
                time = frame.time
                start = time if start is None else start
                # Where the file gives no times, or goes back, frames follow each other at the rate.
                time = index / float(self.rate) if time is None or start is None else time - start
                time = before + 1 / float(self.rate) if time <= before else time
                before = time
                pixels = frame.to_ndarray(format='rgb24')
                yield index, time, np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))
        except av.FFmpegError as error:
            raise UnreadableFilm(f'undecodable film: {error.strerror or type(error).__name__}') from None


@contextlib.contextmanager
def open_film(path: Path) -> Iterator[Film]:
    """A film to be read.

    Raises:
        UnreadableFilm: if it is none.
        UserError: if PyAV is not installed.
    """
    check_installed()
    import av

    options = {'protocol_whitelist': 'file', 'format_whitelist': _CONTAINERS}
    try:
        container = av.open(os.fspath(path), options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnreadableFilm(f'not a film: {getattr(error, "strerror", None) or type(error).__name__}') from None
    with container:
        if not container.streams.video:
            raise UnreadableFilm('not a film: it holds no pictures')
        yield Film(container)


class FilmWriter:
    """A film (MP4, H.264, without sound) that is written aside and takes its place when the context ends well.

    Args:
        path: where it goes.
        rate: frames per second, which players are told; each frame has its own time.
    """

    def __init__(self, path: Path, rate: Fraction):
        self._path, self._rate = path, rate
        self._aside = path.with_name(f'.{path.name}.partial')
        self._container = self._stream = None

    def __enter__(self) -> FilmWriter:
        check_installed()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def add(self, time: float, image: np.ndarray) -> None:
        """Writes a frame, uint8 [H, W, 3]; an odd last row or column is left out, as H.264 wants it."""
        import av

        height, width = (side // 2 * 2 for side in image.shape[:2])
        if self._container is None:
            self._container = av.open(os.fspath(self._aside), 'w', format='mp4')
            self._stream = self._container.add_stream('libx264', rate=self._rate, options={'crf': '20'})
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, 'yuv420p'
            self._stream.codec_context.time_base = _CLOCK
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format='rgb24')
        frame.pts, frame.time_base = round(time / _CLOCK), _CLOCK
        self._container.mux(self._stream.encode(frame))

    def __exit__(self, kind, *_) -> None:
        if self._container is not None:
            if kind is None:
                self._container.mux(self._stream.encode())
            self._container.close()
            if kind is None:
                os.replace(self._aside, self._path)
        with contextlib.suppress(FileNotFoundError):
            self._aside.unlink()
