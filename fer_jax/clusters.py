"""How a process learns that it is one of several: from flags, this package's launcher, Open MPI, Slurm or Kubernetes.

Only reads the environment. What `jax.distributed.initialize` finds by itself (the coordinator under Slurm and Open MPI
4) is left to it; see jax/_src/clusters.
"""

from __future__ import annotations

import dataclasses
import glob
import zlib
from collections.abc import Mapping

from fer_jax.errors import UserError

HEARTBEAT = ('FER_JAX_HEARTBEAT', 3)  # seconds without a sign of life until a process counts as lost
_PORTS = (61440, 4096)  # the first and how many: where jax puts its coordinator as well


@dataclasses.dataclass(frozen=True)
class Membership:
    """One process of several.

    Attributes:
        index, num: this process, of so many.
        coordinator: HOST:PORT of process 0, or None where `method` of jax finds it.
        method: of jax.distributed.initialize: slurm, ompi or deactivate.
        local_index, local_num: the same on this host; None where the environment does not say.
    """

    index: int
    num: int
    coordinator: str | None
    method: str = 'deactivate'
    local_index: int | None = None
    local_num: int | None = None


def find_membership(
    environment: Mapping[str, str], coordinator: str | None = None, num: int | None = None, index: int | None = None
) -> Membership | None:
    """Finds the other processes; None for a process alone.

    Flags come first, then FER_JAX_COORDINATOR, FER_JAX_NUM and FER_JAX_ID (or JOB_COMPLETION_INDEX of an indexed
    Kubernetes Job in place of the last), then Open MPI, then a Slurm step of several tasks. FER_JAX_COORDINATOR alone
    says where process 0 listens when Open MPI or Slurm say the rest.

    Raises:
        UserError: if what is given is not whole, or not a number in its range.
    """
    if (coordinator, num, index) != (None, None, None):
        named = {'--coordinator': coordinator, '--num': num, '--id': index}
        return _checked(_whole(named, 'flags'), '--id', '--num', '--coordinator')
    coordinator = environment.get('FER_JAX_COORDINATOR')
    if 'FER_JAX_NUM' in environment or 'FER_JAX_ID' in environment:
        names = ('FER_JAX_COORDINATOR', 'FER_JAX_NUM', 'FER_JAX_ID')
        named = {name: environment.get(name) for name in names}
        named['FER_JAX_ID'] = named['FER_JAX_ID'] or environment.get('JOB_COMPLETION_INDEX')
        return _checked(_whole(named, 'variables'), 'FER_JAX_ID', 'FER_JAX_NUM', 'FER_JAX_COORDINATOR')
    if 'OMPI_COMM_WORLD_SIZE' in environment:
        return _open_mpi(environment, coordinator)
    if 'SLURM_STEP_NODELIST' in environment and 'SLURM_PROCID' in environment:
        return _slurm(environment, coordinator)
    return None


def _whole(named: dict[str, object], kind: str) -> Membership:
    absent = [name for name, value in named.items() if value is None]
    if absent:
        raise UserError(f'the {kind} {", ".join(named)} go together; {absent[0]} is not given')
    coordinator, num, index = named.values()
    return Membership(_number(index, list(named)[2]), _number(num, list(named)[1]), str(coordinator))


def _number(value: object, name: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise UserError(f'{name} is {value!r}; a whole number is wanted') from None


def _checked(found: Membership, index: str, num: str, coordinator: str) -> Membership | None:
    if found.num < 1:
        raise UserError(f'{num} is {found.num}; at least 1 is wanted')
    if not 0 <= found.index < found.num:
        raise UserError(f'{index} is {found.index}; with {num}={found.num} it can be 0 to {found.num - 1}')
    host, _, port = found.coordinator.rpartition(':')
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UserError(f'{coordinator} is {found.coordinator!r}; HOST:PORT is wanted, the address of process 0')
    return found if found.num > 1 else None


def _open_mpi(environment: Mapping[str, str], coordinator: str | None) -> Membership | None:
    names = ('RANK', 'SIZE', 'LOCAL_RANK', 'LOCAL_SIZE')
    index, num, local_index, local_num = (int(environment[f'OMPI_COMM_WORLD_{name}']) for name in names)
    if num == 1:
        return None
    method = 'deactivate'
    if coordinator is None and 'OMPI_MCA_orte_hnp_uri' in environment:
        method = 'ompi'
    elif coordinator is None:  # Open MPI 5, which jax does not know
        # PMIX_NAMESPACE is prterun-HOST-PID@JOB, with the host that mpirun runs on.
        name = environment.get('PMIX_NAMESPACE', '')
        start, _, _ = name.rpartition('-')
        host = '127.0.0.1' if num == local_num else start.partition('-')[2]
        if not name or not host:
            raise UserError('Open MPI does not say where process 0 is; give mpirun -x FER_JAX_COORDINATOR=HOST:PORT')
        coordinator = f'{host}:{_PORTS[0] + zlib.crc32(name.encode()) % _PORTS[1]}'
    return Membership(index, num, coordinator, method, local_index, local_num)


def _slurm(environment: Mapping[str, str], coordinator: str | None) -> Membership | None:
    num = int(environment.get('SLURM_STEP_NUM_TASKS') or environment['SLURM_NTASKS'])
    if num == 1:
        return None
    node = int(environment.get('SLURM_NODEID', 0))
    local_num = tasks_per_node(environment['SLURM_STEP_TASKS_PER_NODE'])[node]
    local_index = int(environment['SLURM_LOCALID'])
    method = 'slurm' if coordinator is None else 'deactivate'
    return Membership(int(environment['SLURM_PROCID']), num, coordinator, method, local_index, local_num)


def tasks_per_node(text: str) -> list[int]:
    """Slurm's short form, as 2(x3),1, written out: [2, 2, 2, 1]."""
    counts = []
    for part in text.split(','):
        number, _, times = part.rstrip(')').partition('(x')
        counts += [int(number)] * int(times or 1)
    return counts


def visible_gpus(environment: Mapping[str, str]) -> int:
    """How many NVIDIA GPUs CUDA shows this process."""
    listed = environment.get('CUDA_VISIBLE_DEVICES')
    if listed is None:
        return len(glob.glob('/proc/driver/nvidia/gpus/*'))
    return len([name for name in listed.split(',') if name.strip() and name.strip() != '-1'])


def allocated_gpus(environment: Mapping[str, str]) -> int:
    """How many NVIDIA GPUs of this host the job has: what Slurm says of the node, or all that CUDA shows."""
    return max(visible_gpus(environment), int(environment.get('SLURM_GPUS_ON_NODE') or 0))


def gpus_of_process(member: Membership, environment: Mapping[str, str]) -> list[int] | None:
    """Which of the GPUs that CUDA shows are this process's; None leaves all to it.

    jax takes one GPU for a process of Slurm or Open MPI, whatever it is given. Here the processes of a host share
    evenly what all of them see; where Slurm has given each its own, it takes all it sees.

    Raises:
        UserError: if the GPUs do not divide over the processes of the host.
    """
    visible = visible_gpus(environment)
    if not visible or member.local_num is None:
        return None
    own = visible < allocated_gpus(environment)
    num = 1 if own else member.local_num
    if visible % num:
        raise UserError(f'{visible} GPUs do not divide over the {num} processes of this host; start another number')
    share = visible // num
    first = 0 if own else member.local_index * share
    return list(range(first, first + share))
