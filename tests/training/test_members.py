"""Several runs through the loop together, with the toy of tests/training/test_loop.py."""

import json
import os
import signal

import jax.numpy as jnp
import pytest

from fer_jax.errors import UserError
from fer_jax.training.account import ENDED_JSON
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.hooks import Hooks, Member
from fer_jax.training.loop import run_members
from fer_jax.training.stopping import Stopped
from tests.training.test_loop import fresh, lines, options

TOTAL = 55.0  # of ten steps, see `Toy`


class Toy:
    """Step N adds N + 1 to each member's total; its loss is N and the member's own part of `apart`.

    `accuracies` has each member's by the step of the evaluation; `bad` the steps at which a member is not finite.
    """

    def __init__(self, members=3, accuracies=None, bad=None, at_step=None):
        self.members, self.accuracies, self.bad = members, accuracies or {}, bad or {}
        self.at_step = at_step or {}
        self.trained, self.evaluated = [], []

    def advance(self, states, step, count, trained):
        self.trained.append((step, [index for index, on in enumerate(trained) if on]))
        self.at_step.get(step, lambda: None)()
        assert count == 1
        states, sums = list(states), []
        for index, on in enumerate(trained):
            row, worst = 0, [0, 0]
            for now in range(step + 1):
                row = row + 1 if now in self.bad.get(index, ()) else 0
                worst = [row, now + 1] if row > worst[0] else worst
            bad = step in self.bad.get(index, ())
            sums.append({'loss': jnp.asarray(float('nan') if bad else step + index / 4), 'worst': jnp.asarray(worst)})
            if on:
                states[index] = states[index].replace(total=states[index].total + step + 1)
        return states, sums

    def evaluate(self, states):
        self.evaluated.append(len(states))
        by_total = {sum(range(1, step + 1)): step for step in range(1, 20)}
        steps = [by_total[int(state.total)] for state in states]
        active = self.trained[-1][1][-len(states) :]
        return [
            {'validation/accuracy': self.accuracies.get(index, {}).get(step, 0.5)}
            for index, step in zip(active, steps, strict=True)
        ]

    def run(self, folder, keep_last=3, **changes):
        members = []
        for index in range(self.members):
            place = folder / f'seed{index}'
            place.mkdir(parents=True, exist_ok=True)
            members.append(Member(fresh(), Checkpoints(str(place), keep_last, 2), str(place)))
        after = lambda state, metrics: state.replace(lowered=state.lowered + metrics['validation/accuracy'])
        hooks = Hooks(self.advance, self.evaluate, after, lambda state, step: float(state.lowered))
        states, failed = run_members(options(**changes), members, hooks)
        return [float(state.total) for state in states], failed


def checkpoints(folder, index):
    return Checkpoints(str(folder / f'seed{index}'))


def told(folder, index):
    """The record without the time."""
    return [{name: line[name] for name in line if name != 'seconds'} for line in lines(folder / f'seed{index}')]


def test_every_member_has_its_own_record_checkpoints_and_rate(tmp_path, capfd):
    toy = Toy(accuracies={0: {5: 0.25}, 2: {5: 0.75, 10: 1.0}})
    assert toy.run(tmp_path) == ([TOTAL] * 3, [''] * 3)
    assert [[line['train/loss'] for line in told(tmp_path, index)][:2] for index in range(3)] == [
        [1.0, 3.5],
        [1.25, 3.75],
        [1.5, 4.0],
    ]
    rates = [[line['learning_rate'] for line in told(tmp_path, index)] for index in range(3)]
    assert rates == [[0, 0.25, 0.25, 0.25, 0.75], [0, 0.5, 0.5, 0.5, 1], [0, 0.75, 0.75, 0.75, 1.75]]
    assert [checkpoints(tmp_path, index).steps() for index in range(3)] == [[5, 10]] * 3
    assert [checkpoints(tmp_path, index).best() for index in range(3)] == [10, 5, 10]
    shown = capfd.readouterr().err
    assert 'loss 9.250 (9.000 to 9.500)' in shown
    assert 'validation/accuracy 0.6667 (0.5000 to 1.0000), best 0.6667 (0.5000 to 1.0000)' in shown


def test_a_member_that_is_not_finite_ends_alone_and_is_not_taken_up_again(tmp_path):
    whole = tmp_path / 'whole'
    Toy().run(whole, log_every=1)
    bad, how = {1: range(6, 100)}, {'max_bad_steps': 2, 'log_every': 1}
    toy = Toy(bad=bad)
    totals, failed = toy.run(tmp_path, **how)
    assert totals[::2] == [TOTAL] * 2
    assert failed[::2] == ['', '']
    assert 'not finite in 2 steps in a row, 7 to 8' in failed[1]
    assert 'the checkpoint of step 5 is kept' in failed[1]
    assert toy.trained[-1] == (9, [0, 2])
    assert [checkpoints(tmp_path, index).steps() for index in range(3)] == [[5, 10], [5], [5, 10]]
    for index in (0, 2):
        assert told(tmp_path, index) == told(whole, index)
    with open(tmp_path / 'seed1' / ENDED_JSON) as file:
        assert json.load(file)['why'] == failed[1]
    toy = Toy(bad=bad)
    assert toy.run(tmp_path, **how)[1] == failed
    assert toy.trained == []
    toy = Toy(bad=bad)
    toy.run(tmp_path, **how, total_steps=12)
    assert toy.trained == [(10, [0, 2]), (11, [0, 2])]


def test_when_all_have_failed_the_loop_ends(tmp_path):
    toy = Toy(2, bad=dict.fromkeys(range(2), range(100)))
    _, failed = toy.run(tmp_path, max_bad_steps=2, total_steps=50)
    assert all('no checkpoint was written yet' in words for words in failed)
    assert len(toy.trained) < 10


def test_members_stop_early_each_by_its_own_evaluations_and_stay_stopped(tmp_path):
    rising = {step: step / 100 for step in range(2, 13, 2)}
    how = {'evaluate_every': 2, 'early_stopping': 2, 'total_steps': 12}
    toy = Toy(accuracies={0: rising, 2: rising | {10: 0.0, 12: 0.0}})
    totals, failed = toy.run(tmp_path, **how)
    assert failed == [''] * 3
    assert totals == [78, 21, 78]
    assert [checkpoints(tmp_path, index).steps()[-1] for index in range(3)] == [12, 6, 12]
    assert toy.evaluated == [3, 3, 3, 2, 2, 2]
    before = [told(tmp_path, index) for index in range(3)]
    toy = Toy(accuracies={0: rising, 2: rising})
    toy.run(tmp_path, **how)
    assert toy.trained == []
    assert [told(tmp_path, index) for index in range(3)] == before
    toy.run(tmp_path, **(how | {'total_steps': 14}))  # the last one has waited for two evaluations by now
    assert toy.trained == [(12, [0]), (13, [0])]


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_with_their_checkpoints_and_they_go_on_to_the_same_end(tmp_path, number):
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    Toy().run(whole)
    with pytest.raises(Stopped) as caught:
        Toy(at_step={6: lambda: os.kill(os.getpid(), number)}).run(broken)
    assert caught.value.args == (number, 7)
    assert [checkpoints(broken, index).steps() for index in range(3)] == [[5, 7]] * 3
    toy = Toy()
    assert toy.run(broken) == ([TOTAL] * 3, [''] * 3)
    assert toy.trained[0] == (7, [0, 1, 2])
    for index in range(3):
        assert told(broken, index) == told(whole, index)


def test_all_go_on_from_the_newest_step_of_which_each_has_a_whole_checkpoint(tmp_path, capsys):
    Toy().run(tmp_path, checkpoint_every=2)
    expected = [told(tmp_path, index) for index in range(3)]
    assert [checkpoints(tmp_path, index).steps() for index in range(3)] == [[5, 6, 8, 10]] * 3
    damaged = tmp_path / 'seed1' / 'checkpoints' / '10' / 'position' / 'metadata'
    damaged.write_text(damaged.read_text() + ' ')
    checkpoints(tmp_path, 2).forget_after(6)
    toy = Toy()
    assert toy.run(tmp_path, checkpoint_every=2)[0] == [TOTAL] * 3
    assert toy.trained[0] == (6, [0, 1, 2])
    assert [told(tmp_path, index) for index in range(3)] == expected
    assert [checkpoints(tmp_path, index).steps() for index in range(3)] == [[5, 6, 8, 10]] * 3
    assert capsys.readouterr().err.count('seed1/checkpoints/10 is damaged') == 0  # 10 was not common

    damaged.write_text(damaged.read_text() + ' ')
    toy = Toy()
    toy.run(tmp_path, checkpoint_every=2)
    assert toy.trained[0] == (8, [0, 1, 2])
    assert capsys.readouterr().err.count('seed1/checkpoints/10 is damaged') == 1
    assert [told(tmp_path, index) for index in range(3)] == expected


@pytest.mark.parametrize('written', range(4))
def test_a_kill_between_the_members_saves_leaves_a_common_step(tmp_path, monkeypatch, written):
    """With the fewest checkpoints kept: members 0 to `written` - 1 have the new one, the others have it not."""

    class Killed(BaseException):
        pass

    real, saves = Checkpoints._write, []

    def write(self, *given):
        saves.append(given[2]['step'])
        if given[2]['step'] == 6 and saves.count(6) > written:
            raise Killed
        real(self, *given)

    monkeypatch.setattr(Checkpoints, '_write', write)
    if written < 3:
        with pytest.raises(Killed):
            Toy().run(tmp_path, keep_last=1, evaluate_every=100, checkpoint_every=2)
    else:
        Toy().run(tmp_path, keep_last=1, evaluate_every=100, checkpoint_every=2, total_steps=6)
    monkeypatch.undo()
    toy = Toy()
    assert toy.run(tmp_path, keep_last=1, evaluate_every=100, checkpoint_every=2)[0] == [TOTAL] * 3
    assert toy.trained[0][0] == (6 if written == 3 else 4)


def test_a_kill_between_the_very_first_saves_begins_anew_and_a_lost_member_is_named(tmp_path):
    Toy().run(tmp_path, total_steps=5)
    checkpoints(tmp_path, 2).forget_after(0)
    toy = Toy()
    toy.run(tmp_path)
    assert toy.trained[0][0] == 0
    checkpoints(tmp_path, 2).forget_after(0)
    with pytest.raises(
        UserError, match='no step of which all members have a whole checkpoint, and .*seed2/checkpoints'
    ):
        Toy().run(tmp_path)
    assert checkpoints(tmp_path, 0).steps() == [5, 10]
