"""Real processes that join, agree and end together; each test starts its own."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PREPARE = """
import os, signal, sys, time
from fer_jax import cli, distributed
from fer_jax.errors import UserError
distributed.initialise()
me = int(os.environ['FER_JAX_ID'])
"""


def free_port():
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        return found.getsockname()[1]


class Processes:
    """Python processes of one run, each with `source`, or with its own of several."""

    def __init__(self, *sources, num=2, **environment):
        port = free_port()
        self.all = []
        for index in range(num):
            variables = os.environ | {
                'TF_CPP_MIN_LOG_LEVEL': '3',
                'XLA_FLAGS': '--xla_force_host_platform_device_count=2',
                'FER_JAX_COORDINATOR': f'127.0.0.1:{port}',
                'FER_JAX_NUM': str(num),
                'FER_JAX_ID': str(index),
                **environment,
            }
            command = [sys.executable, '-c', PREPARE + sources[index % len(sources)]]
            process = subprocess.Popen(
                command, cwd=ROOT, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            self.all.append(process)

    def end(self, seconds=60):
        """[(exit code, stdout, stderr)] in the processes' order."""
        try:
            found = [process.communicate(timeout=seconds) for process in self.all]
        finally:
            for process in self.all:
                process.kill()
        return [(process.returncode, *texts) for process, texts in zip(self.all, found, strict=True)]


def test_processes_agree_on_the_greatest_value_and_end_together():
    source = """
with distributed.together(lambda error: None):
    assert distributed.agree_max(5) == 5
    assert distributed.agree_max(7 - 3 * me) == 7
    distributed.require_same('the weather', 'sun')
    distributed.barrier('a')
    time.sleep(1.5 * me)
    print('ends', distributed.is_main())
"""
    assert Processes(source).end() == [(0, 'ends True\n', ''), (0, 'ends False\n', '')]


def test_what_differs_is_named_in_every_process():
    source = """
with distributed.together(cli.explain):
    distributed.require_same('the sky', 'a=1\\nb=2')
    distributed.require_same('the configuration', f'x=1\\nseed={me % 2}')
"""
    for code, out, error in Processes(source, num=3).end():
        assert (code, out) == (2, '')
        assert error.count('\n') == 1
        assert 'the processes differ in the configuration: process 0 has seed=0, process 1 has seed=1' in error


@pytest.mark.parametrize('index', [0, 1])
def test_one_process_with_bad_input_ends_the_others_with_its_line(index):
    source = f"""
with distributed.together(cli.explain):
    if me == {index}:
        raise UserError('no data here')
    distributed.barrier('never complete')
"""
    started = time.monotonic()
    found = Processes(source).end()
    assert time.monotonic() - started < 30
    assert [code for code, _, _ in found] == [2, 2]
    assert found[index][2] == 'fer_jax.train: error: no data here\n'
    assert found[1 - index][2] == f'fer_jax.train: process {index} ended: error: no data here\n'


@pytest.mark.parametrize(
    ('index', 'doing'), [(1, 'distributed.agree_max(1)'), (0, 'time.sleep(0.05)'), (1, "distributed.barrier('never')")]
)
def test_a_killed_process_ends_the_other_within_five_seconds(index, doing):
    source = f"""
with distributed.together(cli.explain):
    distributed.at_step(7)
    distributed.barrier('start')
    if me == {index}:
        print(time.time(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    while True:
        {doing}
"""
    processes = Processes(source)
    processes.all[1 - index].wait(60)
    ended = time.time()
    found = processes.end()
    assert ended - float(found[index][1]) < 5
    code, _, error = found[1 - index]
    assert code == 75
    assert error == (
        'fer_jax.train: a peer was lost at step 7; ending with code 75: started again, the run goes on from its '
        'checkpoint\n'
    )


def test_a_fault_of_the_program_shows_its_traceback_once_and_ends_all():
    source = """
with distributed.together(cli.explain):
    if me == 1:
        raise KeyError('x')
    distributed.barrier('never complete')
"""
    (code, _, error), (other_code, _, other) = Processes(source).end()
    assert (code, other_code) == (1, 1)
    assert error == "fer_jax.train: process 1 ended: KeyError: 'x'\n"
    assert other.count('Traceback') == 1


def test_a_process_that_never_comes_is_not_waited_for_without_end():
    port = free_port()
    address = f'127.0.0.1:{port}'
    alone = {'FER_JAX_NUM': '2', 'FER_JAX_COORDINATOR': address, 'FER_JAX_JOIN': '2'}
    for index in (0, 1):
        code, _, error = Processes('', num=1, FER_JAX_ID=str(index), **alone).end()[0]
        assert code == 2
        assert error.count('\n') == 1
        assert f'process {index} of 2 did not join within 2 s at {address}' in error
