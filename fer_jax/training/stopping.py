"""SIGTERM and SIGINT: noted instead of ending the process, and obeyed by all processes of a run at one step.

One process alone asks nobody. Among several, jax's preemption service carries the notice: whichever of them is told,
all learn within about a second how many dispatches the furthest has begun, and stop after the next. Asking takes no
collective. A notice of the last second before the end of training is not heard any more.
"""

from __future__ import annotations

import signal

import jax
from jax._src import distributed as engine
from jax.experimental import multihost_utils

from fer_jax import distributed


class Stopped(Exception):
    """The run was asked to stop and has saved a checkpoint; `args[0]` is the signal, `args[1]` the step."""


class Signals:
    """While entered, SIGTERM and SIGINT are noted instead of ending the process; a second SIGINT does end it.

    All processes enter it, ask `reached` equally often, and leave it.
    """

    def __enter__(self):
        self.received = 0
        self._asked = 0
        self._several = jax.process_count() > 1
        self._old = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGINT)}
        if self._several:
            # It takes SIGTERM for itself, so that it lives no longer than someone asks it.
            jax.config.update('jax_enable_preemption_service', True)
            engine.global_state.initialize_preemption_sync_manager()
        else:
            signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind, *_):
        if self._several:
            if kind is None:
                # A slower process may be agreeing on its last dispatches, for which every service must answer.
                distributed.barrier('the last dispatch')
            engine.global_state.preemption_sync_manager.shutdown()
            engine.global_state.preemption_sync_manager = None
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def reached(self) -> int:
        """The signal after which all processes stop here, 0 to go on; asked once after every dispatch."""
        if not self._several:
            return self.received
        self._asked += 1
        if not multihost_utils.reached_preemption_sync_point(self._asked):
            return 0
        interrupted = distributed.agree_max(int(self.received == signal.SIGINT))
        return signal.SIGINT if interrupted else signal.SIGTERM

    def _note(self, number, _frame):
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
        if self._several:
            signal.raise_signal(signal.SIGTERM)  # the one that the service hears
