"""SIGTERM and SIGINT: noted instead of ending the process, and obeyed by all processes of a run at one step.

One process alone asks nobody. Among several, jax's preemption service carries the notice: whichever of them is told,
all learn within about a second how many dispatches the furthest has begun, and stop after the next. Asking takes no
collective. A notice of that last second finds no next dispatch: so all say at the end what they have heard, and no one
leaves before it has gone round, since a service that has it waits for all others.
"""

from __future__ import annotations

import ctypes
import signal
import time
from collections.abc import Callable

import jax
from jax._src import distributed as engine
from jax.experimental import multihost_utils

from fer_jax import distributed


class Stopped(Exception):
    """The run was asked to stop and has saved a checkpoint; `args[0]` is the signal, `args[1]` the step."""


class Signals:
    """While entered, SIGTERM and SIGINT are noted instead of ending the process; a second SIGINT does end it.

    All processes enter it, ask `reached` equally often, ask `at_the_end` unless that said to stop, and leave it.
    """

    def __enter__(self):
        self.received = 0
        self._asked, self._told = 0, False
        self._tell_service: Callable[[int], None] | None = None
        self._several = jax.process_count() > 1
        self._old = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGINT)}
        if self._several:
            # It takes SIGTERM for itself, so that it lives no longer than someone asks it.
            jax.config.update('jax_enable_preemption_service', True)
            engine.global_state.initialize_preemption_sync_manager()
            self._tell_service = _handler(signal.SIGTERM)
        for number in self._old:
            signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        if self._several:
            engine.global_state.preemption_sync_manager.shutdown()
            engine.global_state.preemption_sync_manager = None
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def reached(self) -> int:
        """The signal after which all processes stop here, 0 to go on; asked once after every dispatch."""
        if not self._several:
            return self.received
        return self._agreed() if self._is_noticed() else 0

    def _is_noticed(self) -> bool:
        self._asked += 1
        return multihost_utils.reached_preemption_sync_point(self._asked)

    def at_the_end(self) -> int:
        """The same after the last dispatch, for a signal that came too late for `reached`."""
        if self._several:
            self._tell_service = None
            # A slower process may be agreeing on its last dispatches, for which every service must answer.
            distributed.barrier('the last dispatch')
            if distributed.agree_max(self._told):
                while not self._is_noticed():
                    time.sleep(0.02)
        return self._agreed()

    def _agreed(self) -> int:
        """What any of the processes has received; an interrupt, which nothing starts again, before SIGTERM."""
        order = (0, signal.SIGTERM, signal.SIGINT)
        return order[distributed.agree_max(order.index(self.received))]

    def _note(self, number, _frame):
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
        if self._tell_service is not None:
            self._told = True
            self._tell_service(signal.SIGTERM)


def _handler(number: int) -> Callable[[int], None]:
    """The C function that a signal calls, which Python cannot name when another library has set it."""
    action = (ctypes.c_void_p * 32)()  # larger than any struct sigaction, whose first field it is
    ctypes.CDLL(None).sigaction(number, None, action)
    return ctypes.CFUNCTYPE(None, ctypes.c_int)(action[0])
