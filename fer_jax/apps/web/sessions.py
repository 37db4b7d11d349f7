"""Cameras and screens that send one picture after the other: in each, people keep their numbers."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from fer_jax.apps.following import follow
from fer_jax.apps.recognized import RecognizedFace
from fer_jax.apps.tracking import Tracker

_MOST, _IDLE = 256, 60.0  # sessions; seconds without a picture after which one is forgotten


@dataclasses.dataclass
class _Session:
    tracker: Tracker
    began: float
    seen: float
    frames: int = 0


class Sessions:
    """The sessions by the names that pages chose; not for threads.

    Args:
        smoothing: time constant in seconds of the mean of a person's probabilities.
        threshold: under which probability the emotion is unsure.
    """

    def __init__(self, smoothing: float, threshold: float):
        self._smoothing, self._threshold = smoothing, threshold
        self._sessions: collections.OrderedDict[str, _Session] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def follow(self, name: str, faces: Sequence[RecognizedFace]) -> dict[str, Any]:
        """What a frame of that session says: its number, its time in seconds since the first, its faces' records."""
        now = time.monotonic()
        session = self._sessions.pop(name, None) or _Session(Tracker(self._smoothing), now, now)
        session.seen = now
        self._sessions[name] = session  # the last used stands last
        while len(self._sessions) > _MOST or now - next(iter(self._sessions.values())).seen > _IDLE:
            self._sessions.popitem(last=False)
        _, records = follow(session.tracker, now - session.began, faces, self._threshold)
        frame = {'frame': session.frames, 'time': round(now - session.began, 4), 'faces': records}
        session.frames += 1
        return frame
