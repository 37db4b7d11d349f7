"""The end of what has none of its own: Ctrl-C, SIGTERM, or a time that is over, met only where all is consistent."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from typing import TypeVar

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_Result = TypeVar('_Result')


class Stopped(Exception):
    """Raised by what `Stop.guarded` made, when it is called after the end has come."""


class Stop:
    """Whether to end. While the context lasts, the first Ctrl-C or SIGTERM only asks; a second Ctrl-C interrupts.

    Args:
        seconds: from `begin` on, after which to end by itself.
    """

    def __init__(self, seconds: float = math.inf):
        self._seconds, self._end, self._asked = seconds, math.inf, False
        self._handlers = {}

    def __enter__(self) -> Stop:
        for number in _SIGNALS:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:  # as for jobs in a shell's background: it stays ignored
                self._handlers[number] = before
                signal.signal(number, self._ask)
        return self

    def __exit__(self, *_) -> None:
        for number, before in self._handlers.items():
            signal.signal(number, before)

    def __bool__(self) -> bool:
        return self._asked or time.monotonic() >= self._end

    def begin(self) -> None:
        """Starts the clock, if it does not run yet."""
        if self._end == math.inf:
            self._end = time.monotonic() + self._seconds

    def wait(self, seconds: float) -> None:
        """Until so many seconds have gone by, or to the end if that is earlier."""
        until = min(time.monotonic() + seconds, self._end)
        while not self and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))  # a signal does not end a sleep

    def guarded(self, work: Callable[..., _Result]) -> Callable[..., _Result]:
        """The same function, which raises Stopped instead of beginning once the end has come."""

        def call(*arguments):
            if self:
                raise Stopped
            return work(*arguments)

        return call

    def _ask(self, number: int, _) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
