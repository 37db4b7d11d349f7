"""Processes side by side: what waits for what, what a failure and a signal leave, and where each may run."""

import json

import pytest

from fer_jax import at_once
from fer_jax.at_once import Work, run_at_once

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
                lambda name=name: done.append(name),
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
    (received, failed), notes, done, _ = run(after, ['a'])
    assert received == 0 and sorted(notes) == ['bad', 'other'] and done == ['other']
    assert failed['bad'].startswith('ended with 3, no such face (')
    assert failed['waits'] == 'waited for bad' and failed['waits too'] == 'waited for waits'


def test_a_simulated_device_is_a_single_one_in_its_process(monkeypatch):
    monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
    monkeypatch.setenv('XLA_FLAGS', '--a=1 --xla_force_host_platform_device_count=3')
    assert at_once.device_slots() == [{'XLA_FLAGS': '--a=1'}] * 3
    monkeypatch.setenv('XLA_FLAGS', '--a=1')
    assert at_once.device_slots() == [{}]
