"""What a process reads of its place among others from its environment, as launchers set it."""

import re
from pathlib import Path

import pytest
import yaml

from fer_jax import checks, clusters
from fer_jax.clusters import Membership, find_membership
from fer_jax.errors import UserError

ROOT = Path(__file__).parents[1]
SLURM = {
    'SLURM_JOB_ID': '7',
    'SLURM_STEP_NODELIST': 'n[1-2]',
    'SLURM_STEP_NUM_TASKS': '4',
    'SLURM_NTASKS': '4',
    'SLURM_STEP_TASKS_PER_NODE': '2(x2)',
    'SLURM_NODEID': '1',
    'SLURM_PROCID': '3',
    'SLURM_LOCALID': '1',
}
OPEN_MPI = {
    'OMPI_COMM_WORLD_SIZE': '4',
    'OMPI_COMM_WORLD_RANK': '2',
    'OMPI_COMM_WORLD_LOCAL_RANK': '0',
    'OMPI_COMM_WORLD_LOCAL_SIZE': '2',
}


def test_nothing_in_the_environment_is_a_process_alone():
    assert find_membership({}) is None
    assert find_membership(SLURM | {'SLURM_STEP_NUM_TASKS': '1'}) is None
    assert find_membership({**SLURM, 'SLURM_STEP_NODELIST': ''}) is not None
    batch_step = {name: value for name, value in SLURM.items() if 'STEP' not in name}
    assert find_membership(batch_step) is None
    assert find_membership({'JOB_COMPLETION_INDEX': '3'}) is None
    assert find_membership({}, 'a:1', 1, 0) is None


def test_flags_come_before_variables_and_these_before_schedulers():
    variables = {'FER_JAX_COORDINATOR': 'b:2', 'FER_JAX_NUM': '3', 'FER_JAX_ID': '1'}
    assert find_membership(variables, 'a:1', 2, 0) == Membership(0, 2, 'a:1')
    assert find_membership(SLURM | OPEN_MPI | variables) == Membership(1, 3, 'b:2')
    del variables['FER_JAX_ID']
    assert find_membership(variables | {'JOB_COMPLETION_INDEX': '2'}) == Membership(2, 3, 'b:2')


def test_slurm_and_open_mpi_are_read():
    assert find_membership(SLURM) == Membership(3, 4, None, 'slurm', 1, 2)
    assert find_membership(SLURM | {'FER_JAX_COORDINATOR': 'c:3'}) == Membership(3, 4, 'c:3', 'deactivate', 1, 2)
    four = OPEN_MPI | {'OMPI_MCA_orte_hnp_uri': '1.0;tcp://10.0.0.1:1'}
    assert find_membership(SLURM | four) == Membership(2, 4, None, 'ompi', 0, 2)
    five = find_membership(OPEN_MPI | {'PMIX_NAMESPACE': 'prterun-head-node1-4711@1'})
    assert (five.method, five.index, five.num) == ('deactivate', 2, 4)
    assert re.fullmatch(r'head-node1:6\d{4}', five.coordinator)
    here = OPEN_MPI | {'OMPI_COMM_WORLD_LOCAL_SIZE': '4', 'PMIX_NAMESPACE': 'prterun-head-4711@1'}
    assert find_membership(here).coordinator.startswith('127.0.0.1:6')
    with pytest.raises(UserError, match='mpirun -x FER_JAX_COORDINATOR=HOST:PORT'):
        find_membership(OPEN_MPI)
    assert clusters.tasks_per_node('2(x3),1') == [2, 2, 2, 1]


@pytest.mark.parametrize(
    ('given', 'says'),
    [
        (('a:1', 2, None), '--coordinator, --num, --id go together; --id is not given'),
        (('a:1', 2, 2), '--id is 2; with --num=2 it can be 0 to 1'),
        (('a:1', 2, -1), '--id is -1'),
        (('a:1', 0, 0), '--num is 0; at least 1'),
        (('a', 2, 0), "--coordinator is 'a'; HOST:PORT"),
        (('a:port', 2, 0), 'HOST:PORT'),
        (('a:70000', 2, 0), 'HOST:PORT'),
    ],
)
def test_flags_that_do_not_fit_are_named(given, says):
    with pytest.raises(UserError, match=re.escape(says)):
        find_membership({}, *given)


def test_variables_that_do_not_fit_are_named():
    with pytest.raises(UserError, match='FER_JAX_ID is not given'):
        find_membership({'FER_JAX_NUM': '2', 'FER_JAX_COORDINATOR': 'a:1'})
    with pytest.raises(UserError, match="FER_JAX_NUM is 'x'; a whole number"):
        find_membership({'FER_JAX_NUM': 'x', 'FER_JAX_COORDINATOR': 'a:1', 'FER_JAX_ID': '0'})


@pytest.mark.parametrize(
    ('local', 'environment', 'expected'),
    [
        ((0, 1), {'CUDA_VISIBLE_DEVICES': '0,1,2,3'}, [0, 1, 2, 3]),  # one task per node has all
        ((1, 2), {'CUDA_VISIBLE_DEVICES': '0,1,2,3', 'SLURM_GPUS_ON_NODE': '4'}, [2, 3]),  # all tasks see the same
        ((1, 2), {'CUDA_VISIBLE_DEVICES': '2,3', 'SLURM_GPUS_ON_NODE': '4'}, [0, 1]),  # Slurm gave each its own
        ((1, 4), {'CUDA_VISIBLE_DEVICES': ''}, None),
        ((None, None), {'CUDA_VISIBLE_DEVICES': '0,1'}, None),
    ],
)
def test_the_processes_of_a_host_use_all_its_gpus(local, environment, expected):
    assert clusters.gpus_of_process(Membership(0, 8, None, 'slurm', *local), environment) == expected


def test_gpus_that_do_not_divide_or_stand_idle_are_refused(monkeypatch):
    with pytest.raises(UserError, match='4 GPUs do not divide over the 3 processes'):
        clusters.gpus_of_process(Membership(0, 3, None, 'slurm', 0, 3), {'CUDA_VISIBLE_DEVICES': '0,1,2,3'})
    for name in ('CUDA_VISIBLE_DEVICES', 'SLURM_GPUS_ON_NODE'):
        monkeypatch.delenv(name, raising=False)
    checks.refuse_idle_devices()
    monkeypatch.setenv('SLURM_GPUS_ON_NODE', '8')
    with pytest.raises(UserError, match='8 GPUs of this host are allocated, and 0 would be used'):
        checks.refuse_idle_devices()
    monkeypatch.setattr('jax.default_backend', lambda: 'gpu')
    monkeypatch.setattr('jax.local_device_count', lambda: 1)
    with pytest.raises(UserError, match='8 GPUs of this host are allocated, and 1 would be used; start one process'):
        checks.refuse_idle_devices()
    monkeypatch.setattr('jax.local_device_count', lambda: 8)
    checks.refuse_idle_devices()
    monkeypatch.setattr('jax.local_device_count', lambda: 1)
    monkeypatch.setenv('FER_JAX_ALLOW_IDLE', '1')
    checks.refuse_idle_devices()


def test_the_kubernetes_job_says_what_its_processes_read():
    with open(ROOT / 'launch' / 'kubernetes' / 'job.yaml') as file:
        service, job = yaml.safe_load_all(file)
    spec = job['spec']
    pod = spec['template']['spec']
    (container,) = pod['containers']
    variables = {variable['name']: variable['value'] for variable in container['env']}
    name = job['metadata']['name']
    found = [find_membership(variables | {'JOB_COMPLETION_INDEX': str(index)}) for index in range(spec['completions'])]
    assert [(member.index, member.num) for member in found] == [(0, spec['parallelism']), (1, spec['parallelism'])]
    assert found[0].coordinator.startswith(f'{name}-0.{pod["subdomain"]}:')
    assert service['spec'] == {
        'clusterIP': 'None',
        'publishNotReadyAddresses': True,
        'selector': {'job-name': name},
    }
    assert (service['metadata']['name'], spec['completionMode']) == (pod['subdomain'], 'Indexed')
    codes = {rule['action']: rule['onExitCodes'] for rule in spec['podFailurePolicy']['rules'] if 'onExitCodes' in rule}
    assert codes['FailJob']['values'] == [1, 2]
    assert {75, 143, 137} <= set(codes['Count']['values'])
    assert {rule['containerName'] for rule in codes.values()} == {container['name']}
    assert pod['securityContext']['runAsNonRoot'] and pod['restartPolicy'] == 'Never'
