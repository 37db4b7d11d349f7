"""How the processes of a run end: together, each knowing why, and within seconds when one of them is lost.

The words go through the coordination service of jax.distributed, which lives in process 0. `fer_jax.distributed` is the
face of this module and of joining.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax._src import distributed as engine
from jax._src.lib import _jax

from fer_jax.clusters import Membership

LOST = 75  # exit code, EX_TEMPFAIL of sysexits.h: a peer was lost, start again

_FOREVER = 2**31 - 1  # milliseconds, 24 days
_LAST_WORDS = 5000  # milliseconds that a process which ends badly leaves the others to hear why
_SIGNS_OF_LOSS = (
    'gloo',
    'nccl',
    'coordination service',
    'barrier',
    'heartbeat',
    'unavailable',
    'connection closed by peer',
    'connection reset by peer',
)


class Peers:
    """This process among the others."""

    def __init__(self, member: Membership):
        self.member = member
        self.client = engine.global_state.client
        self.exchanges = 0  # names them; the same in all processes, which call in the same order
        self.step: int | None = None
        self.code: int | None = None  # once this process ends
        self.lock = threading.Lock()
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def wait(self, name: str, milliseconds: int = _FOREVER) -> None:
        """Waits at a barrier of the service; beside the main thread, so that Ctrl-C is heard."""
        errors: list[BaseException] = []

        def call():
            try:
                self.client.wait_at_barrier(name, milliseconds)
            except BaseException as error:
                errors.append(error)

        waiter = threading.Thread(target=call, daemon=True)
        waiter.start()
        waiter.join()
        if errors:
            raise errors[0]

    def meet(self, name: str) -> None:
        """Waits, without limit, until all are here."""
        self.exchanges += 1
        self.wait(f'fer_jax/{name}/{self.exchanges}')

    def gather(self, value: str) -> list[str]:
        """Every process's value, in their order."""
        self.exchanges += 1
        place = f'fer_jax/exchange/{self.exchanges}'
        self.client.key_value_set(f'{place}/{self.member.index:06d}', value)
        self.wait(place)
        return [text for _, text in sorted(self.client.key_value_dir_get(place + '/'))]

    def end_by(self, error: BaseException, explained: tuple[int, str] | None) -> None:
        """Ends this process, and so the others, for an error; `explained` is its code and line unless it is a fault."""
        if explained is None and _is_loss(error):
            time.sleep(0.5)  # a process that ends badly says why before it breaks a collective
            if self.code is None:
                self.lost()
        elif explained is not None and self._begin_end(*explained):
            self._tell_end(*explained)
        elif explained is None and self._begin_end(1, ''):
            sys.excepthook(type(error), error, error.__traceback__)
            self._tell_end(1, ': '.join([type(error).__name__, *str(error).splitlines()[:1]]))
        while True:  # until the thread that was first ends this process
            time.sleep(1)

    def close(self) -> None:
        """Ends together with the others once all are here."""
        self.meet('the end')
        self.code = 0
        if self.member.index == 0:
            self.client.key_value_set('fer_jax/end', json.dumps([0, 0, '']))
        self.listener.join()  # jax takes the client away, from under a call that still waits
        jax.distributed.shutdown()

    def lost(self) -> None:
        """Leaves because a peer does not answer; called by the service's thread or for a collective that failed."""
        at = 'before the first step' if self.step is None else f'at step {self.step}'
        self._begin_end(
            LOST, f'a peer was lost {at}; ending with code {LOST}: started again, the run goes on from its checkpoint'
        )
        leave(self.code)

    def _begin_end(self, code: int, line: str) -> bool:
        """Says why this process ends, unless another thread was first."""
        with self.lock:
            first = self.code is None
            if first:
                self.code = code
        # Of processes that share a terminal, the first speaks for all.
        if first and line and (self.member.index == 0 or 'FER_JAX_NPROC' not in os.environ):
            print(f'fer_jax.train: {line}', file=sys.stderr)
        return first

    def _tell_end(self, code: int, line: str) -> None:
        """Ends this process, and with it the others, which hear why."""
        with contextlib.suppress(Exception):  # another process was first
            self.client.key_value_set('fer_jax/end', json.dumps([self.member.index, code, line]))
        with contextlib.suppress(Exception):  # the service may be gone
            self.wait('fer_jax/ended', _LAST_WORDS)
        leave(code)

    def _listen(self) -> None:
        """Waits for the end of another process."""
        while True:
            try:
                text = self.client.blocking_key_value_get('fer_jax/end', _FOREVER)
                break
            except Exception as error:
                if 'DEADLINE_EXCEEDED' not in str(error):
                    return  # the service is gone, of which `lost` hears
        index, code, line = json.loads(text)
        if code == 0 or not self._begin_end(code, f'process {index} ended: {line}'):  # all are at their end
            return
        with contextlib.suppress(Exception):
            self.client.wait_at_barrier('fer_jax/ended', _LAST_WORDS)
        leave(code)


def _is_loss(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, (RuntimeError, ValueError)) and any(sign in text for sign in _SIGNS_OF_LOSS)


_present: Peers | None = None


def present() -> Peers | None:
    """This process among the others; None where it is alone."""
    return _present


def join(member: Membership) -> None:
    """Notes that this process is one of several, once jax.distributed has connected them."""
    global _present
    _present = Peers(member)


def leave(code: int) -> None:
    """Ends at once: a plain exit waits for the others in jax's shutdown."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def _on_loss(*_: Any) -> None:
    if _present is not None:
        _present.lost()
    leave(LOST)


_terminate = ctypes.CFUNCTYPE(None)(_on_loss)  # kept, since C++ holds its address


@contextlib.contextmanager
def loss_reported() -> Iterator[None]:
    """Has the client that jax makes meanwhile call `_on_loss` where it would abort with a stack trace for a lost peer.

    jax.distributed.initialize does not pass the callback on that its client takes. And the binding of jaxlib 0.10
    and 0.11 cannot hand the status to Python: it throws std::bad_cast in a thread of its own, which is the end of the
    process, so the same function is what C++ calls at its end.
    """
    make = _jax.get_distributed_runtime_client
    with contextlib.suppress(OSError, AttributeError):  # then it aborts (134), and is started again as well
        ctypes.CDLL('libstdc++.so.6')['_ZSt13set_terminatePFvvE'](_terminate)
    _jax.get_distributed_runtime_client = lambda *given, **more: make(
        *given, **more, missed_heartbeat_callback=_on_loss
    )
    try:
        yield
    finally:
        _jax.get_distributed_runtime_client = make
