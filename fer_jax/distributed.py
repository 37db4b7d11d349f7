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
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import distributed as engine
from jax._src.lib import _jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fer_jax import peers
from fer_jax.clusters import HEARTBEAT, find_membership, gpus_of_process
from fer_jax.errors import UserError

_JOIN = ('FER_JAX_JOIN', 300)  # seconds to wait at the start for the others


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
    member = find_membership(os.environ, coordinator, num, index)
    if member is None:
        return
    seconds = _seconds(*_JOIN)
    # Processes agree on a signal in the training loop; jax's own service would take SIGTERM and do nothing with it.
    jax.config.update('jax_enable_preemption_service', False)
    try:
        with peers.loss_reported():
            jax.distributed.initialize(
                coordinator_address=member.coordinator,
                num_processes=member.num,
                process_id=member.index,
                local_device_ids=gpus_of_process(member, os.environ),
                cluster_detection_method=member.method,
                initialization_timeout=seconds,
                heartbeat_timeout_seconds=_seconds(*HEARTBEAT),
                shutdown_timeout_seconds=60,
            )
    except (RuntimeError, ValueError) as error:
        address = engine.global_state.coordinator_address
        _refuse_join(f'process {member.index} of {member.num} did not join within {seconds} s at {address}', error)
    peers.join(member)
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
    peers.leave(peers.LOST if int(os.environ.get('FER_JAX_RESTART') or 0) else 2)


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
    if peers.present() is None:
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
    others = peers.present()
    if others is None:
        return
    hashes = others.gather(hashlib.sha256(value.encode()).hexdigest())
    other = next((index for index, found in enumerate(hashes) if found != hashes[0]), None)
    if other is None:
        return
    texts = others.gather(value)
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
    others = peers.present()
    if others is None:
        return value
    told = [json.loads(text) for text in others.gather(json.dumps([_host(), value]))]
    return sum(part for name, part in told if name == _host())


def count_hosts() -> int:
    """How many hosts the processes run on; called by all at the same point."""
    others = peers.present()
    return 1 if others is None else len(set(others.gather(_host())))


def _host() -> str:
    return f'{socket.gethostname()} {os.stat("/proc/self/ns/uts").st_ino if sys.platform == "linux" else ""}'


def barrier(name: str) -> None:
    """Waits, without limit, until all processes are here; ends them when one is lost."""
    if (others := peers.present()) is not None:
        others.meet(name)


def at_step(step: int) -> None:
    """Notes where the run is, for the line that a lost peer is told with."""
    if (others := peers.present()) is not None:
        others.step = step


@contextlib.contextmanager
def together(explain: Callable[[BaseException], tuple[int, str] | None]) -> Iterator[None]:
    """Ends all processes together: at the end of the block when all are there, or as soon as one fails.

    Args:
        explain: makes an exit code and a line of an exception; None for one that is a fault of the program.
    """
    others = peers.present()
    try:
        yield
    except BaseException as error:
        if others is None:
            raise
        others.end_by(error, explain(error))
    if others is not None:
        others.close()


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
