"""Processes side by side: what waits for what, what a failure and a signal leave, and where each may run."""

import json

import pytest

from fer_jax import at_once
from fer_jax.at_once import Failure, Work, run_at_once

# Notes when it began and ended, and what it was given; fails where its name says so.
STAND_IN = """
import json, os, sys, time
name, folder = sys.argv[1:]
began = time.monotonic()
time.sleep(0.3)
with open(os.path.join(folder, name), 'w') as file:
    json.dump({'began': began, 'ended': time.monotonic(), 'slot': os.environ['SLOT']}, file)
if name.startswith('bad'):
    print('no such face', file=sys.stderr)
    sys.exit(3)
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs works of these names, each after others; returns what came back, what each noted, and what was said."""
    (tmp_path / 'stand_in.py').write_text(STAND_IN)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    (tmp_path / 'notes').mkdir()

    def run(after, slots):
        said, done = [], []
        works = [
            Work(
                name,
                ['stand_in', name, str(tmp_path / 'notes')],
                str(tmp_path / 'logs' / name),
                others,
                done=lambda name=name: done.append(name),
            )
            for name, others in after.items()
        ]
        found = run_at_once(works, [{'SLOT': slot} for slot in slots], said.append)
        notes = {path.name: json.loads(path.read_text()) for path in (tmp_path / 'notes').iterdir()}
        return found, notes, done, said

    return run


def test_each_begins_once_what_it_waits_for_is_done_and_what_most_wait_for_comes_first(run):
    after = {'alone': (), 'one': (), 'two': ('one',), 'three': ('two', 'alone'), 'four': ('one',)}
    (received, failed), notes, done, said = run(after, ['a', 'b'])
    assert (received, failed) == (0, {}) and sorted(done) == sorted(after)
    for name, others in after.items():
        assert all(notes[other]['ended'] < notes[name]['began'] for other in others)
    assert said[0].startswith('one: ')  # three wait for it, one for the other
    assert {note['slot'] for note in notes.values()} == {'a', 'b'}
    spans = sorted((note['began'], note['ended']) for note in notes.values())
    for first, second, third in zip(spans, spans[1:], spans[2:], strict=False):
        assert third[0] > min(first[1], second[1])
    told = [words for words in said if ': done in ' in words]
    assert [words.partition('; ')[2].partition(' after')[0] for words in told] == [f'{n} of 5' for n in range(1, 6)]
    assert all(('about' in words) == (words is not told[-1]) for words in told)


def test_a_failure_keeps_those_alone_that_wait_for_it_from_running(run):
    after = {'bad': (), 'waits': ('bad',), 'waits too': ('waits',), 'other': ()}
    (received, failed), notes, done, said = run(after, ['a'])
    assert received == 0 and sorted(notes) == ['bad', 'other'] and done == ['other']
    assert failed['bad'].words.startswith('ended with 3, no such face (')
    assert failed['waits'] == Failure('waited for bad', 3) and failed['waits too'] == Failure('waited for waits', 3)
    assert any(words.startswith('bad: failed, ended with 3') for words in said)


def test_an_error_of_ours_leaves_no_process_behind(tmp_path, monkeypatch):
    (tmp_path / 'sleeps.py').write_text('import time\ntime.sleep(600)')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    begun, real = [], at_once._start
    monkeypatch.setattr(at_once, '_start', lambda *given: begun.append(real(*given)) or begun[-1])

    def say(words):
        if len(begun) == 2:
            raise RuntimeError('a pipe that broke')

    works = [Work(name, ['sleeps'], str(tmp_path / name)) for name in 'ab']
    with pytest.raises(RuntimeError, match='a pipe that broke'):
        run_at_once(works, [{}, {}], say)
    assert [process.returncode for process in begun] == [-15, -15]


def test_a_log_that_cannot_be_written_is_a_failure_of_that_one(run, tmp_path):
    (tmp_path / 'logs').write_text('a file')
    (received, failed), notes, done, _ = run({'one': (), 'two': ('one',)}, ['a'])
    assert (received, notes, done) == (0, {}, [])
    assert 'logs' in failed['one'].words and failed['two'].words == 'waited for one'


def test_what_is_done_by_then_is_not_begun(tmp_path):
    works = [Work('one', ['no_such_module'], str(tmp_path / 'log'), needless=lambda: True)]
    assert run_at_once(works, [{}], print) == (0, {})


def test_the_reason_is_of_this_attempt(tmp_path, monkeypatch):
    (tmp_path / 'dies.py').write_text('import os\nos.kill(os.getpid(), 9)')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    (tmp_path / 'log').write_text('trouble of yesterday')
    _, failed = run_at_once([Work('one', ['dies'], str(tmp_path / 'log'))], [{}], print)
    assert failed['one'] == Failure(f'ended with -9, without a word ({tmp_path}/log)', -9)


@pytest.mark.parametrize(
    ('after', 'message'),
    [({'one': ('two',)}, 'one waits for .*two.*, which are no works'), ({'one': ('one',)}, 'one waits for itself')],
)
def test_what_could_never_begin_is_refused(run, after, message):
    with pytest.raises(ValueError, match=message):
        run(after, ['a'])


def test_gpus_that_are_none_are_no_slots(monkeypatch):
    monkeypatch.delenv('JAX_PLATFORMS', raising=False)
    monkeypatch.setattr(at_once, 'visible_gpus', lambda _: 2)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,,6,-1')
    assert [slot['CUDA_VISIBLE_DEVICES'] for slot in at_once.device_slots()] == ['4', '6']


def test_a_simulated_device_is_a_single_one_in_its_process(monkeypatch):
    monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
    monkeypatch.setenv('XLA_FLAGS', '--a=1 --xla_force_host_platform_device_count=3')
    assert at_once.device_slots() == [{'XLA_FLAGS': '--a=1'}] * 3
    monkeypatch.setenv('XLA_FLAGS', '--a=1')
    assert at_once.device_slots() == [{}]
