"""A camera or a screen, read live: always the newest picture; shown, and written as a film is, until it is stopped."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import time
from fractions import Fraction
from typing import Any

import numpy as np

from fer_jax.apps.drawing import draw_faces
from fer_jax.apps.film import FilmWriter
from fer_jax.apps.following import count_emotions, describe_people, follow, write_people
from fer_jax.apps.reading import FilmOptions, Recognize
from fer_jax.apps.records import Journal
from fer_jax.apps.screen import without
from fer_jax.apps.source import Source, SourceEnded
from fer_jax.apps.stopping import Stop
from fer_jax.apps.tracking import Tracker
from fer_jax.apps.view import View

_WAIT = 0.1  # seconds for a picture, after which it is looked whether to stop
_RECENT = 2.0  # seconds over which rates are means
_RATE = Fraction(30)  # which players are told; each picture has its own time


@dataclasses.dataclass(frozen=True)
class Recording:
    """What became of a live source.

    line: what was written last, of kind `film`; {} if no picture came.
    words: of the people, for people.
    ended: why it ended by itself; '' where it was stopped.
    """

    line: dict[str, Any]
    words: str
    ended: str


def read_live(
    source: Source,
    recognize: Recognize,
    journal: Journal,
    view: View,
    stop: Stop,
    options: FilmOptions,
    draw: bool,
) -> Recording:
    """Reads what is newest, again and again, until it is stopped or the view is closed or the source ends.

    Each look is written as it comes; timeline and drawn film are complete when this returns.
    """
    name = journal.new_name(f'{source.name}_{time.strftime("%Y-%m-%d_%H-%M-%S")}')
    drawn = f'drawn/{name}.mp4'
    look = _Look(source, recognize, view, options, draw)
    ended = ''
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(FilmWriter(journal.folder / drawn, _RATE)) if draw else None
        try:
            while not stop and not view.closed:
                seen = look.next()
                if seen:
                    stop.begin()
                    line, image = seen
                    journal.add({'kind': 'frame', 'source': name, **line})
                    if writer:
                        writer.add(line['time'], image)
        except SourceEnded as error:
            ended = str(error)
    if not look.count:
        return Recording({}, 'no picture came', ended)
    people = count_emotions(journal.looks(name))
    line = {'kind': 'film', 'source': name, 'bytes': 0, 'modified': look.clock, **look.line(), 'people': len(people)}
    if people:
        line['timeline'] = write_people(journal.looks(name), journal.folder, name)
    if draw:
        line['drawn'] = drawn
    journal.add(line)
    return Recording(line, describe_people(people)[1], ended)


class _Look:
    """Looks at a source, one after the other.

    count: how many.
    clock: when the first one's picture came, in nanoseconds since 1970.
    """

    def __init__(self, source: Source, recognize: Recognize, view: View, options: FilmOptions, draw: bool):
        self._source, self._recognize, self._view, self._options = source, recognize, view, options
        self._draws = draw or view.wants_picture
        self._tracker, self._looks, self._frames = Tracker(options.smoothing), _Rate(), _Rate()
        self.count, self.clock = 0, 0

    def next(self) -> tuple[dict[str, Any], np.ndarray | None] | None:
        """Looks at the newest picture and shows it: what is to be written of it, and it drawn; None if there is none.

        Raises:
            SourceEnded: if none will come.
        """
        taken = self._source.newest(_WAIT)
        if taken is None:
            self._view.wait()
            return None
        number, came, image = taken
        if not self.count:
            self._first, self._began = number, came
            self.clock = time.time_ns() - round(1e9 * (time.monotonic() - came))
        if self._source.area:
            image = without(image, self._source.area, self._view.area)
        self._number, self._time, self._size = number - self._first, came - self._began, image.shape
        self.count += 1
        faces, records = follow(self._tracker, self._time, self._recognize([image])[0], self._options.threshold)
        people = [record['person'] for record in records]
        if self._draws:
            image = draw_faces(image, faces, [f'{person}:' for person in people])
        self._view.show(list(zip(people, faces, strict=True)), self._words(), image)
        place = {'frame': self._number, 'time': round(self._time, 4), 'clock': self.clock + round(1e9 * self._time)}
        return {**place, 'faces': records}, image

    def line(self) -> dict[str, Any]:
        """What is to be said of all of them."""
        return {
            'clock': self.clock,
            'width': self._size[1],
            'height': self._size[0],
            'frames': self._number + 1,
            'looks': self.count,
            'seconds': round(self._time, 4),
        }

    def _words(self) -> str:
        now = time.monotonic()
        looks, frames = self._looks.add(now, self.count), self._frames.add(now, self._number + 1)
        minutes, seconds = divmod(int(self._time), 60)
        of = '' if self._source.area else f' of {frames:.1f} frames/s'  # a screen is asked when it is looked at
        return f'{self._source.name} {minutes:02}:{seconds:02}, {looks:.1f} looks/s{of}'


class _Rate:
    """How fast a number rises, per second, of late."""

    def __init__(self):
        self._marks = collections.deque()

    def add(self, now: float, count: int) -> float:
        self._marks.append((now, count))
        while len(self._marks) > 2 and now - self._marks[0][0] > _RECENT:
            self._marks.popleft()
        (before, least), (_, most) = self._marks[0], self._marks[-1]
        return (most - least) / (now - before) if now > before else 0.0
