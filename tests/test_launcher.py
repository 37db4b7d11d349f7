"""What the launcher makes of codes and signals, with short processes in place of trainings."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fer_jax import launcher
from fer_jax.errors import UserError

ROOT = Path(__file__).parents[1]
# Stands in for `python -m fer_jax.train`: notes that it started and does what the test says for this attempt.
STAND_IN = """
import os, signal, sys, time
attempt, index = int(os.environ['FER_JAX_RESTART']), int(os.environ.get('FER_JAX_ID', 0))
with open(os.environ['NOTES'], 'a') as file:
    file.write(f'{attempt} {index}\\n')
def say(line):
    sys.stderr.write(line + '\\n')  # at once: print writes a line and its end apart, and another's may come between
def stop(number, _):
    time.sleep(0.5)
    sys.exit(128 + number)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, stop)
"""


@pytest.fixture
def launch(tmp_path):
    """Runs the launcher with a stand-in; returns the process, and reads what was started."""
    package = tmp_path / 'package' / 'fer_jax'
    package.mkdir(parents=True)
    for name in ('__init__', 'launcher', 'clusters', 'cli', 'errors'):
        (package / f'{name}.py').symlink_to(ROOT / 'fer_jax' / f'{name}.py')
    notes = tmp_path / 'notes'

    def start(source, *words, **environment):
        (package / 'train.py').write_text(STAND_IN + source)
        variables = os.environ | {'PYTHONPATH': str(tmp_path / 'package'), 'NOTES': str(notes)} | environment
        command = [sys.executable, '-m', 'fer_jax.launcher', *words]
        variables['FER_JAX_HEARTBEAT'] = '1'
        variables.setdefault('CUDA_VISIBLE_DEVICES', '')
        return subprocess.Popen(
            command, cwd=tmp_path, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def started():
        return notes.read_text().splitlines() if notes.exists() else []

    return start, started


def ended(process):
    out, error = process.communicate(timeout=60)
    return process.returncode, out, error


@pytest.mark.parametrize('code', [0, 1, 2, 130])
def test_a_run_that_cannot_gain_is_not_started_again(launch, code):
    start, started = launch
    assert ended(start(f'sys.exit({code})')) == (code, '', '')
    assert started() == ['0 0']


@pytest.mark.parametrize(
    ('how', 'says'),
    [
        ('sys.exit(75)', 'process 1 lost a peer'),
        ('sys.exit(143)', 'process 1 was stopped by SIGTERM'),
        ('os.kill(os.getpid(), signal.SIGKILL)', 'process 1 was killed by SIGKILL'),
        ('os.abort()', 'process 1 was killed by SIGABRT'),
    ],
)
def test_all_processes_are_started_again_when_one_can_go_on(launch, how, says):
    start, started = launch
    source = f'if attempt == 0 and index == 1:\n    {how}\nif attempt == 0:\n    sys.exit(75)\n'
    code, _, error = ended(start(source, '--nproc=2'))
    assert code == 0
    assert error.count('\n') == 1
    assert 'restart 1 of 3' in error
    assert says in error or how == 'sys.exit(75)' and 'process 0 lost a peer' in error
    assert sorted(started()) == ['0 0', '0 1', '1 0', '1 1']


def test_restarts_come_to_an_end(launch):
    start, started = launch
    code, _, error = ended(start('os.kill(os.getpid(), signal.SIGKILL)', '--nproc=2', FER_JAX_RESTARTS='2'))
    assert code == 137
    assert [line.partition('; ')[2] for line in error.splitlines()] == [
        'restart 1 of 2',
        'restart 2 of 2',
        'not started again after 2 restarts (FER_JAX_RESTARTS)',
    ]
    assert len(started()) == 6


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_launcher_goes_to_all_and_nothing_is_started_again(launch, number):
    start, started = launch
    process = start('time.sleep(60)', '--nproc=2')
    while len(started()) < 2:
        time.sleep(0.05)
    time.sleep(0.3)  # until both listen
    process.send_signal(number)
    code, _, error = ended(process)
    assert (code, error) == (130 if number == signal.SIGINT else 143, '')
    assert len(started()) == 2


def test_the_first_speaks_and_of_the_others_errors_with_their_number(launch):
    start, _ = launch
    source = "print('out', index)\nsay('trouble')\nsay('\\r 5%|bar')\n"
    code, out, error = ended(start(source, '--nproc=3'))
    assert (code, out) == (0, 'out 0\n')
    assert sorted(line for line in error.splitlines() if line) == [' 5%|bar', '[1] trouble', '[2] trouble', 'trouble']


def test_processes_share_the_gpus_of_the_host(launch, monkeypatch):
    start, _ = launch
    source = "say(os.environ['CUDA_VISIBLE_DEVICES'])\n"
    environment = {'CUDA_VISIBLE_DEVICES': '1,2,5,7', 'JAX_PLATFORMS': ''}
    _, _, error = ended(start(source, '--nproc=2', **environment))
    assert sorted(error.splitlines()) == ['1,2', '[1] 5,7']
    code, _, error = ended(start(source, '--nproc=3', **environment))
    assert code == 2
    assert '--nproc=3 does not divide the 4 GPUs of this host' in error


@pytest.mark.parametrize(
    ('words', 'says'),
    [
        (['--nproc=two'], "--nproc is 'two'"),
        (['--nproc'], "--nproc is ''"),
        (['--nproc=0'], "--nproc is '0'"),
        (['--nproc=2', '--coordinator=a:1'], 'start each with its own --id'),
    ],
)
def test_what_makes_no_sense_is_refused(words, says):
    with pytest.raises(UserError, match=says):
        launcher.main(words)


@pytest.mark.parametrize('when', ['while it trains', 'before it begins'])
def test_the_training_saves_when_its_launcher_is_killed(launch, when):
    start, started = launch
    orphaned = 'while os.getppid() == int(os.environ["FER_JAX_PARENT"]):\n    time.sleep(0.05)\n'
    first, second = ('end_with_parent()\n', '') if when == 'while it trains' else ('', f'{orphaned}end_with_parent()\n')
    process = start(
        'from fer_jax.parents import end_with_parent\n'
        "def stop(*_):\n    print('saved', flush=True)\n    sys.exit(0)\n"
        f"signal.signal(signal.SIGTERM, stop)\n{first}print('ready', flush=True)\n{second}time.sleep(60)\n"
    )
    assert process.stdout.readline() == 'ready\n'
    process.kill()
    assert process.stdout.readline() == 'saved\n'
    process.communicate(timeout=60)
    assert started() == ['0 0']
