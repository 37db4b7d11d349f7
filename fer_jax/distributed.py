"""Several processes that train one run: they join, agree, and end together.

jax.distributed is the engine. Its coordination service, which lives in process 0, tells who is alive and carries the
few words that are not a device's business: what must be the same everywhere, and why a process ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import distributed as engine
from jax._src.lib import _jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fer_jax.clusters import Membership, find_membership, gpus_of_process
from fer_jax.errors import UserError

LOST = 75  # exit code, EX_TEMPFAIL of sysexits.h: a peer was lost, start again

_HEARTBEAT = ('FER_JAX_HEARTBEAT', 4)  # seconds without a sign of life until a process counts as lost
_JOIN = ('FER_JAX_JOIN', 300)  # seconds to wait at the start for the others
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


class _Peers:
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

    def gather(self, value: str) -> list[str]:
        """Every process's value, in their order."""
        self.exchanges += 1
        place = f'fer_jax/exchange/{self.exchanges}'
        self.client.key_value_set(f'{place}/{self.member.index:06d}', value)
        self.wait(place)
        return [text for _, text in sorted(self.client.key_value_dir_get(place + '/'))]

    def begin_end(self, code: int, line: str) -> bool:
        """Says why this process ends, unless another thread was first."""
        with self.lock:
            first = self.code is None
            if first:
                self.code = code
        # Of processes that share a terminal, the first speaks for all.
        if first and line and (self.member.index == 0 or 'FER_JAX_NPROC' not in os.environ):
            _say(line)
        return first

    def tell_end(self, code: int, line: str) -> None:
        """Ends this process, and with it the others, which hear why."""
        with contextlib.suppress(Exception):  # the service may be gone, or another process was first
            self.client.key_value_set('fer_jax/end', json.dumps([self.member.index, code, line]))
            self.wait('fer_jax/ended', _LAST_WORDS)
        _leave(code)

    def close(self) -> None:
        """Ends together with the others once all are here."""
        barrier('the end')
        self.code = 0
        if self.member.index == 0:
            self.client.key_value_set('fer_jax/end', json.dumps([0, 0, '']))
        self.listener.join()  # jax takes the client away, from under a call that still waits
        jax.distributed.shutdown()

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
        if code == 0 or not self.begin_end(code, f'process {index} ended: {line}'):  # all are at their end
            return
        with contextlib.suppress(Exception):
            self.client.wait_at_barrier('fer_jax/ended', _LAST_WORDS)
        _leave(code)

    def lost(self, *_: Any) -> None:
        """Leaves because a peer does not answer; called by the service's thread or for a collective that failed."""
        at = 'before the first step' if self.step is None else f'at step {self.step}'
        self.begin_end(
            LOST, f'a peer was lost {at}; ending with code {LOST}: started again, the run goes on from its checkpoint'
        )
        _leave(self.code)


_peers: _Peers | None = None


def initialise(coordinator: str | None = None, num: int | None = None, index: int | None = None) -> None:
    """Joins the other processes of the run, before any device is touched; for one process nothing happens.

    Args:
        coordinator: HOST:PORT of process 0; all three or none, see `clusters.find_membership`.
        num: of processes.
        index: of this one.

    Raises:
        UserError: if the arguments are not right, the others do not come in FER_JAX_JOIN seconds (300), or hold
            other versions of fer_jax or jax, or another number of devices.
    """
    global _peers
    member = find_membership(os.environ, coordinator, num, index)
    if member is None:
        return
    seconds = _seconds(*_JOIN)
    # Processes agree on a signal in the training loop; jax's own service would take SIGTERM and do nothing with it.
    jax.config.update('jax_enable_preemption_service', False)
    try:
        with _loss_reported():
            jax.distributed.initialize(
                coordinator_address=member.coordinator,
                num_processes=member.num,
                process_id=member.index,
                local_device_ids=gpus_of_process(member, os.environ),
                cluster_detection_method=member.method,
                initialization_timeout=seconds,
                heartbeat_timeout_seconds=_seconds(*_HEARTBEAT),
                shutdown_timeout_seconds=60,
            )
    except (RuntimeError, ValueError) as error:
        address = engine.global_state.coordinator_address
        _refuse_join(f'process {member.index} of {member.num} did not join within {seconds} s at {address}', error)
    _peers = _Peers(member)
    # gloo would listen where the host's name leads, on Debian's installations to 127.0.1.1.
    _jax.make_gloo_tcp_collectives = functools.partial(_jax.make_gloo_tcp_collectives, hostname=_own_address())
    _greet()


def _own_address() -> str:
    """The address from which this host reaches process 0."""
    host, port = engine.global_state.coordinator_address.rsplit(':', 1)
    family, kind, *_, address = socket.getaddrinfo(host.strip('[]'), int(port), type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)  # of a datagram socket: nothing is sent
        return probe.getsockname()[0]


def _greet() -> None:
    """Refuses peers that cannot work together, then opens the ways between their devices."""
    require_same('the versions of fer_jax and jax', _versions())
    with _without_stdout():  # where gloo announces its connections
        require_same('the number of devices of a process', str(jax.local_device_count()))
        agree_max(0)


def _versions() -> str:
    from fer_jax import __version__

    return f'fer_jax {__version__}, jax {jax.__version__}'


def _refuse_join(what: str, error: Exception) -> None:
    reason = str(error).splitlines()[0]
    print(f'fer_jax.train: error: {what}; is every process started, and its port open? ({reason})', file=sys.stderr)
    # A plain exit would wait for those who never came. A run that was going once finds its peers again, or a new host.
    _leave(LOST if int(os.environ.get('FER_JAX_RESTART') or 0) else 2)


def _seconds(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdigit() or int(text) < 1:
        raise UserError(f'{name} is {text!r}; a whole number of seconds from 1 on is wanted')
    return int(text)


def is_main() -> bool:
    """Whether this is the process that writes reports and speaks."""
    return engine.global_state.process_id == 0  # jax.process_index() without touching a device


def agree_max(value: int) -> int:
    """The greatest of the processes' values, the same in all; a collective, called by all at the same point."""
    if _peers is None:
        return value
    sharding, greatest = _collective()
    values = np.full(jax.local_device_count(), value, np.int32)
    return int(jax.block_until_ready(greatest(jax.make_array_from_process_local_data(sharding, values))))


@functools.cache
def _collective() -> tuple[NamedSharding, Callable[[jax.Array], jax.Array]]:
    # Over all devices, as training is: gloo and NCCL connect them once for both.
    mesh = jax.make_mesh((jax.device_count(),), ('data',), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec('data')), jax.jit(
        jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec())
    )


def require_same(what: str, value: str) -> None:
    """Makes sure that every process holds the same value; called by all at the same point.

    Args:
        what: in words.
        value: lines; the message names the first that differs.

    Raises:
        UserError: in every process if one of them differs.
    """
    if _peers is None:
        return
    hashes = _peers.gather(hashlib.sha256(value.encode()).hexdigest())
    other = next((index for index, found in enumerate(hashes) if found != hashes[0]), None)
    if other is None:
        return
    texts = _peers.gather(value)
    raise UserError(
        f'the processes differ in {what}: {_difference(texts[0], texts[other], other)}; start all with the same'
    )


def _difference(first: str, second: str, index: int) -> str:
    lines, others = first.splitlines(), second.splitlines()
    for line, other in zip(lines, others, strict=False):
        if line != other:
            return f'process 0 has {line}, process {index} has {other}'
    return f'process 0 has {len(lines)} lines, process {index} has {len(others)}'


def sum_on_host(value: int) -> int:
    """The sum over the processes on this host; called by all at the same point."""
    if _peers is None:
        return value
    host = f'{socket.gethostname()} {os.stat("/proc/self/ns/uts").st_ino if sys.platform == "linux" else ""}'
    told = [json.loads(text) for text in _peers.gather(json.dumps([host, value]))]
    return sum(part for name, part in told if name == host)


def barrier(name: str) -> None:
    """Waits, without limit, until all processes are here; ends them when one is lost."""
    if _peers is not None:
        _peers.exchanges += 1
        _peers.wait(f'fer_jax/{name}/{_peers.exchanges}')


def at_step(step: int) -> None:
    """Notes where the run is, for the line that a lost peer is told with."""
    if _peers is not None:
        _peers.step = step


@contextlib.contextmanager
def together(explain: Callable[[BaseException], tuple[int, str] | None]) -> Iterator[None]:
    """Ends all processes together: at the end of the block when all are there, or as soon as one fails.

    Args:
        explain: makes an exit code and a line of an exception; None for one that is a fault of the program.
    """
    try:
        yield
    except BaseException as error:
        if _peers is None:
            raise
        _end_by(error, explain(error))
    if _peers is not None:
        _peers.close()


def _end_by(error: BaseException, explained: tuple[int, str] | None) -> None:
    if explained is None and _is_loss(error):
        time.sleep(0.5)  # a process that ends badly says why before it breaks a collective
        if _peers.code is None:
            _peers.lost()
    elif explained is not None and _peers.begin_end(*explained):
        _peers.tell_end(*explained)
    elif explained is None and _peers.begin_end(1, ''):
        sys.excepthook(type(error), error, error.__traceback__)
        _peers.tell_end(1, ': '.join([type(error).__name__, *str(error).splitlines()[:1]]))
    while True:  # until the thread that was first ends this process
        time.sleep(1)


def _is_loss(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, (RuntimeError, ValueError)) and any(sign in text for sign in _SIGNS_OF_LOSS)


def _say(line: str) -> None:
    print(f'fer_jax.train: {line}', file=sys.stderr)


def _leave(code: int) -> None:
    """Ends at once: a plain exit waits for the others in jax's shutdown."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


@contextlib.contextmanager
def _without_stdout() -> Iterator[None]:
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # of C, which gloo prints with
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _on_loss(*_: Any) -> None:
    if _peers is not None:
        _peers.lost()
    _leave(LOST)


_terminate = ctypes.CFUNCTYPE(None)(_on_loss)  # kept, since C++ holds its address


@contextlib.contextmanager
def _loss_reported() -> Iterator[None]:
    """Has jax's client call `_on_loss` where it would abort with a stack trace because a peer is lost.

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
