"""Several pairs from one command: in this process one after the other, or each in a process of its own."""

import fcntl
import json
import os
import signal
import time

import pytest

from fer_jax import at_once, several
from fer_jax.config import default_config, set_field
from fer_jax.errors import UserError
from tests.launches import PAIR, finish, launch_two, words

# Stands in for `python -m fer_jax.train`: notes what it was given and saw, and does what the pair's name says.
STAND_IN = """
import json, os, signal, sys, time
given = dict(word[2:].split('=', 1) for word in sys.argv[1:])
folder = given['workdir']
seen = {'pair': given['config.pair'], 'pairs': given['config.pairs'], 'device': os.environ.get('CUDA_VISIBLE_DEVICES')}
def stop(*_):
    open(os.path.join(folder, 'checkpoint'), 'w').close()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
with open(os.path.join(folder, 'seen.jsonl'), 'a') as file:
    print(json.dumps(seen | {'time': time.monotonic()}), file=file)
if 'fear' in folder:
    print('fer_jax.train: error: no images of fear', file=sys.stderr)
    sys.exit(2)
time.sleep(float(os.environ['SECONDS_EACH']))
"""


def make(*pairs, **changes):
    config = default_config()
    for name, value in ({'task': 'cyclegan', 'pairs': pairs, 'cyclegan__devices': 'one'} | changes).items():
        set_field(config, name.replace('__', '.'), value)
    return config.lock()


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Two devices, and the stand-in on the path of modules that a new process finds first."""
    package = tmp_path / 'modules' / 'fer_jax'
    package.mkdir(parents=True)
    (package / '__init__.py').touch()
    (package / 'train.py').write_text(STAND_IN)
    monkeypatch.setenv('PYTHONPATH', str(package.parent))
    monkeypatch.chdir(package.parent)
    monkeypatch.setenv('SECONDS_EACH', '0.2')
    monkeypatch.delenv('JAX_PLATFORMS')
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,6')
    monkeypatch.setattr(at_once, 'visible_gpus', lambda _: 2)
    return tmp_path / 'pairs'


def seen(workdir, name):
    with open(workdir / name / 'seen.jsonl') as file:
        return [json.loads(line) for line in file]


def test_every_pair_has_a_process_that_sees_one_device_and_a_failure_loses_no_other(stand_in):
    config = make('anger=happiness', 'fear=happiness', 'sadness=happiness', 'surprise=neutral')
    with pytest.raises(
        UserError, match='1 of the pairs in .* failed, the others are trained: fear_to_happiness'
    ) as told:
        several.train_at_once(config, str(stand_in), ['--config=x.py'])
    assert 'ended with 2, fer_jax.train: error: no images of fear' in str(told.value)
    names = ('anger_to_happiness', 'fear_to_happiness', 'sadness_to_happiness', 'surprise_to_neutral')
    found = {name: seen(stand_in, name)[0] for name in names}
    assert [found[name]['pair'] for name in names[::3]] == ['anger,happiness', 'surprise,neutral']
    assert {one['pairs'] for one in found.values()} == {''}
    assert {one['device'] for one in found.values()} == {'4', '6'}
    assert found[names[0]]['device'] != found[names[1]]['device']


def test_a_signal_stops_all_with_their_checkpoints_and_begins_no_other(stand_in, monkeypatch, capfd):
    monkeypatch.setenv('SECONDS_EACH', '60')
    begun = []
    real = at_once._start

    def start(*given):
        begun.append(real(*given))
        if len(begun) == 2:
            for _ in range(200):
                if all(os.path.exists(stand_in / name / 'seen.jsonl') for name in ('a_to_b', 'b_to_c')):
                    break
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGTERM)
        return begun[-1]

    monkeypatch.setattr(at_once, '_start', start)
    assert several.train_at_once(make('a=b', 'b=c', 'c=d'), str(stand_in), ['--config=x.py']) == 143
    assert len(begun) == 2
    assert [process.returncode for process in begun] == [143, 143]
    assert all((stand_in / name / 'checkpoint').exists() for name in ('a_to_b', 'b_to_c'))
    assert 'the same command goes on' in capfd.readouterr().err


def test_in_turn_every_pair_is_a_run_and_a_failure_loses_no_other(tmp_path):
    trained = []

    def train(config, workdir):
        if 'b' in config.pair:
            raise UserError('no images')
        trained.append((config.pair, config.pairs, os.path.basename(workdir)))

    with pytest.raises(UserError, match='1 of the pairs in .* failed.*: a_to_b: no images'):
        several.train_in_turn(make('a=b', 'c=d', 'e=f'), str(tmp_path), train)
    assert trained == [(('c', 'd'), (), 'c_to_d'), (('e', 'f'), (), 'e_to_f')]


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (lambda: make('anger'), "config.pairs has 'anger'; SOURCE=TARGET is wanted"),
        (lambda: make('a=b', 'b=a'), 'config.pairs names b and a twice; a pair serves both directions'),
        (lambda: make('a=b', cyclegan__devices='two'), "cyclegan.devices is 'two'; it can be all, one"),
    ],
)
def test_pairs_that_are_not_pairs_are_refused(config, message):
    with pytest.raises(UserError, match=message):
        several.read_pairs(config())


def test_among_two_processes_a_pair_that_fails_in_one_ends_both(tmp_path):
    first = tmp_path / 'run' / 'anger_to_happiness'
    first.mkdir(parents=True)
    with open(first / '.lock', 'w') as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        processes = launch_two(tmp_path / 'run', PAIR | {'pairs': ('anger=happiness', 'anger=fear')})
        assert [finish(process) for process in processes] == [2, 2]
    for index in range(2):
        assert f'another process is training in {first}' in words(tmp_path / 'run', index)
    assert not (tmp_path / 'run' / 'anger_to_fear').exists()
