"""Real processes that join, agree and end together; each test starts its own."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import launches

ROOT = Path(__file__).parents[1]
PREPARE = """
import os, signal, sys, time
from fer_jax import cli, distributed
from fer_jax.errors import UserError
distributed.initialise()
me = int(os.environ['FER_JAX_ID'])
"""


def variables(index, num, port, **more):
    return {
        'XLA_FLAGS': '--xla_force_host_platform_device_count=2',
        'FER_JAX_COORDINATOR': f'127.0.0.1:{port}',
        'FER_JAX_NUM': str(num),
        'FER_JAX_ID': str(index),
        **more,
    }


@pytest.fixture
def start(tmp_path):
    """Starts the processes of a run; gives them, and what ends them: [(exit code, stdout, lines of fer_jax)]."""

    def begin(source, num=2):
        port = launches.free_port()
        processes = [
            launches.launch_source(tmp_path / str(index), PREPARE + source, **variables(index, num, port))
            for index in range(num)
        ]

        def end():
            codes = [launches.finish(process, 60) for process in processes]
            said = [[(tmp_path / f'{index}.{part}').read_text() for part in ('out', 'err')] for index in range(num)]
            return [
                (code, out, [line for line in error.splitlines() if line.startswith('fer_jax')])
                for code, (out, error) in zip(codes, said, strict=True)
            ]

        return processes, end

    return begin


def test_processes_agree_on_the_greatest_value_and_end_together(start):
    source = """
with distributed.together(lambda error: None):
    assert distributed.agree_max(5) == 5
    assert distributed.agree_max(7 - 3 * me) == 7
    distributed.require_same('the weather', 'sun')
    distributed.barrier('a')
    time.sleep(1.5 * me)
    print('ends', distributed.is_main())
"""
    _, end = start(source)
    assert end() == [(0, 'ends True\n', []), (0, 'ends False\n', [])]


def test_what_differs_is_named_in_every_process(start):
    source = """
with distributed.together(cli.explain):
    distributed.require_same('the sky', 'a=1\\nb=2')
    distributed.require_same('the configuration', f'x=1\\nseed={me % 2}')
"""
    _, end = start(source, num=3)
    for code, out, lines in end():
        assert (code, out, len(lines)) == (2, '', 1)
        assert 'the processes differ in the configuration: process 0 has seed=0, process 1 has seed=1' in lines[0]


@pytest.mark.parametrize(
    ('apart', 'says'),
    [
        ({'seed': 1}, 'what they were given: process 0 has config.seed=0, process 1 has config.seed=1'),
        ({'rows': 1}, 'their data: process 0 has manifest '),
    ],
)
def test_a_run_does_not_begin_with_two_configurations_or_two_data_sets(tmp_path, apart, says):
    processes = launches.launch_two(tmp_path / 'run', apart=apart)
    assert [launches.finish(process) for process in processes] == [2, 2]
    for index in range(2):
        assert f'error: the processes differ in {says}' in launches.words(tmp_path / 'run', index)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('index', [0, 1])
def test_one_process_with_bad_input_ends_the_others_with_its_line(start, index):
    source = f"""
with distributed.together(cli.explain):
    if me == {index}:
        raise UserError('no data here')
    distributed.barrier('never complete')
"""
    _, end = start(source)
    found = end()
    assert found[index] == (2, '', ['fer_jax.train: error: no data here'])
    assert found[1 - index] == (2, '', [f'fer_jax.train: process {index} ended: error: no data here'])


@pytest.mark.parametrize(
    ('index', 'doing'), [(1, 'distributed.agree_max(1)'), (0, 'time.sleep(0.05)'), (1, "distributed.barrier('never')")]
)
def test_a_killed_process_ends_the_other_within_five_seconds(start, index, doing):
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
    processes, end = start(source)
    processes[1 - index].join(60)
    ended = time.time()
    found = end()
    assert ended - float(found[index][1]) < 5
    line = 'a peer was lost at step 7; ending with code 75: started again, the run goes on from its checkpoint'
    assert found[1 - index] == (75, '', [f'fer_jax.train: {line}'])


def test_a_fault_of_the_program_shows_its_traceback_once_and_ends_all(start, tmp_path):
    source = """
with distributed.together(cli.explain):
    if me == 1:
        raise KeyError('x')
    distributed.barrier('never complete')
"""
    _, end = start(source)
    (code, _, lines), (other_code, _, _) = end()
    assert (code, other_code) == (1, 1)
    assert lines == ["fer_jax.train: process 1 ended: KeyError: 'x'"]
    assert (tmp_path / '1.err').read_text().count('Traceback') == 1


@pytest.mark.parametrize('index', [0, 1])
def test_who_waits_for_a_process_that_never_comes_ends_with_one_line(index):
    port = launches.free_port()
    more = {'FER_JAX_JOIN': '2', 'TF_CPP_MIN_LOG_LEVEL': '3'}
    done = subprocess.run(
        [sys.executable, '-c', PREPARE],
        cwd=ROOT,
        env=os.environ | variables(index, 2, port, **more),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1
    assert f'process {index} of 2 did not join within 2 s at 127.0.0.1:{port}' in done.stderr
