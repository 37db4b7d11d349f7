"""`config.ensemble.members`: seeds trained together by the train command, each a run like any other."""

import json
import os
import signal

import jax
import numpy as np
import pytest

from fer_jax import evaluate, experiment, run_json, train
from fer_jax.errors import UserError
from fer_jax.members import find_runs
from fer_jax.training import classify
from fer_jax.training.checkpoints import Checkpoints
from tests.launches import assert_ended_alike, finish, launch, launch_two, log, steps, wait_for


@pytest.fixture
def train_together(monkeypatch, tmp_path, make_config, make_dataset):
    """Trains members in this process on so many devices, without pictures; returns the workdir."""

    def run(name, devices=1, members=3, data=None, **changes):
        data = data or make_dataset()
        monkeypatch.setattr(experiment, 'load_prepared', lambda _: data)
        monkeypatch.setattr(jax, 'devices', lambda *_: jax.local_devices()[:devices])
        monkeypatch.setattr('fer_jax.evaluate.write_report', lambda *_, **__: None)
        workdir = str(tmp_path / name)
        train.train_members(make_config(**changes, ensemble__members=members), workdir)
        return workdir

    return run


def seeds_of(workdir, count=3):
    return [os.path.join(workdir, f'seed{seed}') for seed in range(count)]


def read(*parts):
    with open(os.path.join(*parts)) as file:
        return json.load(file)


def logits(workdir, split='validation'):
    with np.load(os.path.join(workdir, 'predictions', f'{split}.npz')) as saved:
        return saved['logits']


def test_members_are_runs_like_any_other_and_their_ensemble_lies_beside_them(
    train_together, make_run, make_config, dataset, tmp_path, capsys
):
    how = {'ensemble__how': 'turn'}
    workdir = train_together('together', **how)
    assert '3 members (seeds 0 to 2, by turn) of shallow_cnn' in capsys.readouterr().out
    alone = make_run('alone', seed=1, data__order_seed=0)
    member = os.path.join(workdir, 'seed1')
    assert log(member) == log(alone)
    assert Checkpoints(member).steps() == Checkpoints(alone).steps()
    np.testing.assert_array_equal(logits(member), logits(alone))
    described = read(member, 'config.json')
    assert described['ensemble'] == {'members': 3, 'seeds': [0, 1, 2], 'how': 'turn'}
    assert run_json.read_run(member).config == make_config(seed=1, data__order_seed=0)
    assert read(member, 'scores.json')['validation']['ensemble'] == read(alone, 'scores.json')['validation']['ensemble']

    scores = read(workdir, 'scores.json')
    assert list(scores) == ['validation']  # test was not asked for
    assert [one['step'] for one in scores['validation']['members']] == [8] * 3
    np.testing.assert_array_equal(logits(workdir), np.concatenate([logits(run) for run in seeds_of(workdir)]))
    found = evaluate.evaluate_runs([workdir], ['validation'], str(tmp_path / 'other'), last=1)
    assert found['validation']['ensemble'] == scores['validation']['ensemble']

    # The same command again does nothing; with the test split it reads that, once.
    capsys.readouterr()
    train_together('together', **how)
    assert capsys.readouterr().out.count('is trained and scored already') == 4
    train_together('together', **how, evaluation__splits=('validation', 'test'))
    train_together('together', **how, evaluation__splits=('validation', 'test'))
    scores = read(workdir, 'scores.json')
    assert scores['test']['readings'] == 1
    assert logits(workdir, 'test').shape == (3, 17, 3)
    # A member goes on alone as the run that it is.
    assert make_run('together/seed1', seed=1, data__order_seed=0) == member
    assert log(member) == log(alone)


def test_the_order_of_the_images_can_have_a_seed_of_its_own(make_run):
    first, second, third = (
        [line['train/loss'] for line in log(make_run(f'{seed}{order}', seed=seed, data__order_seed=order))]
        for seed, order in ((3, -1), (3, 3), (3, 4))
    )
    assert first == second
    assert first != third


def test_members_in_threads_are_the_same_by_another_feed(train_together):
    expected = train_together('turn', ensemble__how='turn', log_every_steps=1)
    workdir = train_together('threads', ensemble__how='threads', log_every_steps=1, data__feed='streaming')
    for one, other in zip(seeds_of(workdir), seeds_of(expected), strict=True):
        losses = [[line['train/loss'] for line in log(run)] for run in (one, other)]
        np.testing.assert_allclose(*losses, rtol=1e-5)
        np.testing.assert_allclose(logits(one), logits(other), atol=1e-3)


def test_a_member_that_fails_is_named_at_the_end_and_the_others_are_scored(
    train_together, monkeypatch, capsys, tmp_path
):
    start = classify.init_state

    def init_state(task, key):
        state = start(task, key)
        broken = jax.random.key_data(key)[1] == 1
        return state.replace(variables=jax.tree.map(lambda leaf: leaf * np.nan, state.variables)) if broken else state

    monkeypatch.setattr(classify, 'init_state', init_state)
    for _ in range(2):
        with pytest.raises(UserError, match='1 of the 3 members in .* failed, the others are trained: seed1: loss or'):
            train_together('run', ensemble__how='vmap', train__max_bad_steps=2)
    workdir = str(tmp_path / 'run')
    scores = read(workdir, 'scores.json')['validation']
    assert [os.path.basename(one['run']) for one in scores['members']] == ['seed0', 'seed2']
    assert find_runs([workdir]) == [os.path.join(workdir, name) for name in ('seed0', 'seed2')]
    assert 'seed1 could not be trained to its end and is left out' in capsys.readouterr().err


def test_what_does_not_fit_is_one_line(train_together, make_run, make_config, tmp_path):
    workdir = train_together('two', members=2, train__steps=2)
    with pytest.raises(UserError, match='holds the members of seeds 0 to 1, not 0 to 2'):
        train_together('two', train__steps=2)
    with pytest.raises(UserError, match='seed0 holds another experiment: config.train.steps is 2 there, 3 here'):
        train_together('two', members=2, train__steps=3)
    with pytest.raises(UserError, match='holds members that were trained together; choose another --workdir'):
        make_run('two', train__steps=2)
    make_run('one', train__steps=2)
    with pytest.raises(UserError, match='holds a single run'):
        train_together('one', train__steps=2)
    with pytest.raises(UserError, match='config.ensemble.how is .x.; it can be auto, vmap, threads, turn'):
        train_together('x', ensemble__how='x')
    with pytest.raises(UserError, match=r'members=3 from config.seed=4294967294 on pass 2\*\*32 - 1'):
        train_together('x', seed=2**32 - 2)
    with pytest.raises(UserError, match='config.ensemble.members is for classifiers'):
        train.train(make_config(task='cyclegan', ensemble__members=2), str(tmp_path / 'x'))
    with pytest.raises(UserError, match='config.ensemble.members=2 is for the train command'):
        train.train(make_config(ensemble__members=2), str(tmp_path / 'x'))
    with open(os.path.join(workdir, 'ensemble.json'), 'w') as file:
        file.write('{"seeds"')
    with pytest.raises(UserError, match='ensemble.json cannot be read'):
        evaluate.evaluate_runs([workdir], ['validation'], str(tmp_path / 'scored'))
    assert not (tmp_path / 'x').exists()


TOGETHER = {
    'ensemble__members': 2,
    'ensemble__how': 'threads',
    'augment__brightness': 0.2,
    'train__ema': 0.9,
    'train__steps': 24,
    'evaluation__every_steps': 12,
    'checkpoint__every_steps': 4,
    'log_every_steps': 2,
    'schedule__name': 'plateau',
}


def test_members_that_are_killed_end_as_unbroken_ones(tmp_path):
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    assert finish(launch(whole, TOGETHER)) == 0
    process = launch(broken, TOGETHER, pause=0.05)
    wait_for(broken / 'seed1', 8, process)
    os.kill(process.pid, signal.SIGKILL)
    assert finish(process) == -signal.SIGKILL
    assert finish(launch(broken, TOGETHER)) == 0
    for name in ('seed0', 'seed1'):
        assert_ended_alike(broken / name, whole / name, 24)
    assert steps(broken / 'seed1') == steps(whole / 'seed1')
    assert read(broken, 'scores.json')['validation']['ensemble'] == read(whole, 'scores.json')['validation']['ensemble']


@pytest.mark.soak
def test_two_processes_train_members_as_one_does(tmp_path, train_together, make_dataset):
    short = {'train__steps': 6, 'log_every_steps': 1, 'ensemble__members': 2}
    assert [finish(process) for process in launch_two(tmp_path / 'two', short)] == [0, 0]
    alone = train_together('one', members=2, data=make_dataset((120, 32, 8)), ensemble__how='turn', **(
        {name: short[name] for name in ('train__steps', 'log_every_steps')}
    ))  # fmt: skip
    for one, other in zip(seeds_of(tmp_path / 'two', 2), seeds_of(alone, 2), strict=True):
        losses = [[line['train/loss'] for line in log(run)] for run in (one, other)]
        np.testing.assert_allclose(*losses, rtol=1e-5)
    assert read(tmp_path / 'two', 'scores.json')['validation']['ensemble']['members'] == 2
