"""One thread that works, and as many places before it as the server has: who finds none is asked to come again."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from fer_jax.apps.web.answers import Limits, Refusal

T = TypeVar('T')
_STUCK = 6  # times the seconds of a request that one work may last before the server calls itself stuck


class Desk:
    """Admits requests and does their work, one after the other: a program on the device, or cores, has no rivals.

    One thread also because decoding silences Pillow's warnings for the whole process meanwhile.
    """

    def __init__(self, limits: Limits):
        self._limits = limits
        self._thread = ThreadPoolExecutor(1, 'reading')
        self._lock = threading.Lock()
        self._taken = 0
        self._since: float | None = None
        self._usual = 0.1  # seconds of one work, a moving mean

    @property
    def taken(self) -> int:
        """Places that are taken."""
        return self._taken

    @property
    def stuck(self) -> bool:
        """Whether one work lasts far longer than it may."""
        since = self._since
        return since is not None and time.monotonic() - since > _STUCK * self._limits.seconds

    def take_place(self) -> Place:
        """A place, to be given back.

        Raises:
            Refusal: if there is none.
        """
        with self._lock:
            if self._taken >= self._limits.requests:
                raise self.busy(f'{self._taken} requests are being worked on, as many as there may be')
            self._taken += 1
        return Place(self)

    def busy(self, wrong: str) -> Refusal:
        """A refusal that says when to come again: when those who are here should be done."""
        seconds = min(30, max(1, math.ceil(self._taken * self._usual)))
        return Refusal(503, wrong, f'try again in {seconds} s', {'Retry-After': str(seconds)})

    def close(self) -> None:
        """Ends the thread when its work is done; what waits is dropped."""
        self._thread.shutdown(cancel_futures=True)

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        return self._thread.submit(self._timed, work)

    def _timed(self, work: Callable[[], T]) -> T:
        self._since = time.monotonic()
        try:
            return work()
        finally:
            self._usual += 0.2 * (time.monotonic() - self._since - self._usual)
            self._since = None

    def _leave(self, *_) -> None:
        with self._lock:
            self._taken -= 1


class Place:
    """One request's place; left when both the request and the work that it began are done.

    A request that ran out of time leaves its work behind, which no one can stop: it keeps its place until it ends, so
    works never pile up.
    """

    def __init__(self, desk: Desk):
        self._desk = desk
        self._work: Future | None = None

    async def work(self, work: Callable[[], T]) -> T:
        """What `work` gives, in the thread."""
        self._work = self._desk._submit(work)
        return await asyncio.wrap_future(self._work)

    def leave(self) -> None:
        if self._work is None:
            self._desk._leave()
        else:
            self._work.add_done_callback(self._desk._leave)
