"""Two processes under real launchers: they train, one is killed or stopped, the run goes on to the same end."""

import os
import re
import shutil
import signal
import subprocess
import time

import pytest

from tests.launchers import running
from tests.launchers.slurm import Slurm

pytestmark = pytest.mark.soak


def needs(*programs):
    absent = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(absent) or os.geteuid() != 0, reason=f'needs root and {", ".join(programs)}')


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
    """A run of two processes that nothing happens to."""
    workdir = tmp_path_factory.mktemp('unbroken') / 'run'
    output = workdir.parent / 'output'
    process = running.start([*running.command(workdir), '--nproc=2'], output)
    assert process.wait(600) == 0, output.read_text()
    running.assert_whole(workdir)
    return workdir


def assert_readable(output):
    """What a user sees has no traceback, and nothing of jax's own C++."""
    said = output.read_text()
    assert 'Traceback' not in said and 'terminate called' not in said
    assert not re.search(r'^[WEF]\d{4} ', said, re.MULTILINE), said


def kill_one(workdir):
    running.wait_for(lambda: running.has_checkpoint(workdir), 'a checkpoint')
    processes = running.training_processes(workdir)
    assert len(processes) == 2
    os.kill(processes[-1], signal.SIGKILL)
    killed = time.monotonic()
    running.wait_for(lambda: not set(processes) & set(running.training_processes(workdir)), 'the end', 30)
    seconds = time.monotonic() - killed
    print(f'the other ended after {seconds:.1f} s', flush=True)
    return seconds


def test_one_of_two_local_processes_is_killed(tmp_path, unbroken):
    process = running.start([*running.command(tmp_path / 'run'), '--nproc=2'], tmp_path / 'output')
    assert kill_one(tmp_path / 'run') < 5
    assert process.wait(600) == 0, (tmp_path / 'output').read_text()
    said = (tmp_path / 'output').read_text()
    assert 'was killed by SIGKILL; restart 1 of 3' in said
    assert_readable(tmp_path / 'output')
    running.assert_whole(tmp_path / 'run', unbroken)


@needs('mpirun')
def test_open_mpi(tmp_path, unbroken):
    # mpirun would bind each process to a core, and a CPU's sums depend on how many there are.
    words = ['mpirun', '--allow-run-as-root', '--oversubscribe', '--bind-to', 'none', '-np', '2']
    process = running.start([*words, *running.command(tmp_path / 'run')], tmp_path / 'output')
    assert kill_one(tmp_path / 'run') < 5
    assert process.wait(600) == 0, (tmp_path / 'output').read_text()
    said = (tmp_path / 'output').read_text()
    assert said.count('restart 1 of 3') == 2
    assert said.count(' on 2 cpu device(s)') == 2  # announced by one process, twice
    assert_readable(tmp_path / 'output')
    running.assert_whole(tmp_path / 'run', unbroken)


@needs('slurmctld', 'slurmd', 'munged', 'sbatch', 'srun')
def test_slurm_stops_the_job_and_starts_it_again(tmp_path, unbroken):
    with Slurm(tmp_path / 'slurm') as slurm:
        words = ['sbatch', '--parsable', '--nodes=1', '--ntasks-per-node=2', '--cpus-per-task=1']
        words += [f'--output={tmp_path}/output', str(running.ROOT / 'launch' / 'slurm.sbatch')]
        submitted = slurm.run([*words, *running.command(tmp_path / 'run')[1:]], cwd=running.ROOT)
        job = submitted.strip()
        running.wait_for(lambda: running.has_checkpoint(tmp_path / 'run'), 'a checkpoint')
        slurm.run(['scancel', '--signal=TERM', job])
        output = tmp_path / 'output'
        running.wait_for(lambda: 'requeue 1 of 20' in output.read_text(), 'the requeue')
        running.wait_for(lambda: slurm.state(job) in ('COMPLETED', 'FAILED', ''), 'the end of the job', 400)
        assert slurm.state(job) == 'COMPLETED', output.read_text()
        assert 'stopped at step' in output.read_text()
        assert_readable(output)
    running.assert_whole(tmp_path / 'run', unbroken)


@pytest.fixture
def hosts():
    """Two hosts, which are network namespaces with a cable between them."""
    names = [f'fer{os.getpid()}{letter}' for letter in 'ab']
    ip = lambda *words: subprocess.run(['ip', *words], check=True, capture_output=True)
    try:
        for name in names:
            ip('netns', 'add', name)
        ip('link', 'add', 'cable', 'netns', names[0], 'type', 'veth', 'peer', 'name', 'cable', 'netns', names[1])
        for number, name in enumerate(names, 1):
            ip('-n', name, 'address', 'add', f'10.77.0.{number}/24', 'dev', 'cable')
            ip('-n', name, 'link', 'set', 'lo', 'up')
            ip('-n', name, 'link', 'set', 'cable', 'up')
        yield names, lambda state: ip('-n', names[0], 'link', 'set', 'cable', state)
    finally:
        for name in names:
            subprocess.run(['ip', 'netns', 'delete', name], check=False, capture_output=True)


@needs('ip')
def test_the_link_between_two_hosts_is_cut(tmp_path, unbroken, hosts):
    names, set_link = hosts
    workdir = tmp_path / 'run'
    flags = ['--coordinator=10.77.0.1:8476', '--num=2']
    processes = [
        running.start(
            ['ip', 'netns', 'exec', name, *running.command(workdir), *flags, f'--id={index}'],
            tmp_path / f'output{index}',
            FER_JAX_HEARTBEAT='4',
        )
        for index, name in enumerate(names)
    ]
    running.wait_for(lambda: running.has_checkpoint(workdir), 'a checkpoint')
    trainings = running.training_processes(workdir)
    set_link('down')
    cut = time.monotonic()
    running.wait_for(lambda: not set(trainings) & set(running.training_processes(workdir)), 'the end of both', 30)
    print(f'both ended after {time.monotonic() - cut:.1f} s', flush=True)
    assert time.monotonic() - cut < 10
    set_link('up')
    said = [(tmp_path / f'output{index}') for index in range(2)]
    assert [process.wait(600) for process in processes] == [0, 0], [path.read_text() for path in said]
    for path in said:
        assert 'a peer was lost at step' in path.read_text()
        assert 'lost a peer; restart 1 of 3' in path.read_text()
        assert_readable(path)
    running.assert_whole(workdir, unbroken)
