"""The loop with a toy in place of a network: a state that counts, metrics that are known."""

import dataclasses
import functools
import json
import os
import signal
import time

import flax.struct
import jax.numpy as jnp
import pytest

from fer_jax.errors import UserError
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.loop import Hooks, LoopOptions, run_loop
from fer_jax.training.stopping import Stopped
from tests.launches import restore_latest


@flax.struct.dataclass
class Toy:
    total: jnp.ndarray
    lowered: jnp.ndarray

    def split(self):
        return {'total': self.total}, {'lowered': self.lowered}

    def join(self, model, rest):
        return self.replace(**model, **rest)


def fresh():
    return Toy(jnp.zeros(()), jnp.zeros(()))


class Script:
    """Hooks whose step N adds N + 1 and has loss N; what was called is noted in `calls`."""

    def __init__(self, accuracies=None, at_step=None, bad=()):
        self.calls = []
        self.accuracies = accuracies or {}
        self.at_step = at_step or {}
        self.bad = set(bad)

    def advance(self, state, step, count):
        self.calls.append(('advance', step, count))
        for now in range(step, step + count):
            self.at_step.get(now, lambda: None)()
        numbers = range(step, step + count)
        worst, row = [0, 0], 0
        for now in range(step + count):
            row = row + 1 if now in self.bad else 0
            worst = [row, now + 1] if row > worst[0] else worst
        loss = float('nan') if self.bad & set(numbers) else float(sum(numbers))
        sums = {'loss': jnp.asarray(loss), 'accuracy': jnp.asarray(0.75 * count), 'worst': jnp.asarray(worst)}
        return state.replace(total=state.total + sum(numbers) + count), sums

    def evaluate(self, state):
        self.calls.append(('evaluate', float(state.total)))
        return {'validation/accuracy': self.accuracies.get(float(state.total), 0.5), 'validation/loss': 1.0}

    def after(self, state, metrics):
        return state.replace(lowered=state.lowered + 1)

    @property
    def hooks(self):
        return Hooks(self.advance, self.evaluate, self.after, lambda state, step: 0.1 * step)

    @property
    def steps_run(self):
        return [step for call, step, *count in self.calls if call == 'advance' for step in range(step, step + count[0])]


def options(**changes):
    return LoopOptions(**({
        'total_steps': 10, 'examples_per_step': 4, 'steps_per_epoch': 5.0, 'log_every': 3, 'evaluate_every': 5
    } | changes))  # fmt: skip


def run(workdir, script, **changes):
    workdir.mkdir(exist_ok=True)
    return run_loop(options(**changes), fresh(), script.hooks, Checkpoints(str(workdir), 3), str(workdir))


def lines(workdir):
    with open(workdir / 'metrics.jsonl') as file:
        return [json.loads(line) for line in file]


def test_log_points_average_since_the_last_one(tmp_path):
    state = run(tmp_path, Script())
    assert float(state.total) == 55
    found = [(line['step'], line['train/loss'], 'validation/accuracy' in line) for line in lines(tmp_path)]
    assert found == [(3, 1.0, False), (5, 3.5, True), (6, 5.0, False), (9, 7.0, False), (10, 9.0, True)]
    third = lines(tmp_path)[2]
    assert third['train/accuracy'] == 0.75
    assert third['epoch'] == 1.2
    assert third['examples'] == 24
    assert third['learning_rate'] == pytest.approx(0.5)
    assert third['seconds'] >= 0


def test_what_is_computed_when_it_has_been_given_is_recorded_before_the_next_step(tmp_path):
    seen = []
    at_step = {step: lambda: seen.append([line['step'] for line in lines(tmp_path)]) for step in (2, 3, 6)}
    run(tmp_path, Script(at_step=at_step))
    assert seen == [[], [3], [3, 5, 6]]


def test_evaluation_and_checkpoints_fall_on_their_steps_and_on_the_last(tmp_path):
    script = Script()
    run(tmp_path, script, total_steps=11, evaluate_every=4, checkpoint_every=3)
    assert [call[1] for call in script.calls if call[0] == 'evaluate'] == [10.0, 36.0, 66.0]  # after 4, 8, 11
    checkpoints = Checkpoints(str(tmp_path))
    assert checkpoints.steps() == [4, 8, 9, 11]  # the best (first of equals) and the last three
    assert checkpoints.position(9)['metrics'] == {}
    assert checkpoints.position(8)['metrics']['validation/accuracy'] == 0.5


def test_snapshots_alone_are_members(tmp_path):
    run(tmp_path, Script({55.0: 0.9}), evaluate_every=2, snapshot_every=5)
    checkpoints = Checkpoints(str(tmp_path))
    assert checkpoints.members(9) == [5, 10]
    assert checkpoints.best() == 10


@pytest.mark.parametrize('dispatch', [1, 2, 4, 100])
def test_dispatches_never_run_over_a_cadence_and_miss_no_step(tmp_path, dispatch):
    script = Script()
    state = run(tmp_path, script, total_steps=23, log_every=6, evaluate_every=10, checkpoint_every=7, dispatch=dispatch)
    assert script.steps_run == list(range(23))
    assert max(call[2] for call in script.calls if call[0] == 'advance') <= dispatch
    ends = {call[1] + call[2] for call in script.calls if call[0] == 'advance'}
    assert {6, 7, 10, 12, 14, 18, 20, 21, 23} <= ends
    assert float(state.total) == 276
    assert [line['step'] for line in lines(tmp_path)] == [6, 10, 12, 18, 20, 23]


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint_and_it_goes_on(tmp_path, number):
    whole = tmp_path / 'whole'
    run(whole, Script())
    script = Script(at_step={6: lambda: os.kill(os.getpid(), number)})
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as caught:
        run(tmp_path, script)
    assert caught.value.args == (number, 7)
    assert signal.getsignal(number) is before
    checkpoints = Checkpoints(str(tmp_path))
    assert checkpoints.steps() == [5, 7]
    assert checkpoints.members(9) == [5]  # a stop makes no member
    script = Script()
    state = run(tmp_path, script)
    assert script.steps_run == [7, 8, 9]
    assert float(state.total) == 55
    assert float(state.lowered) == 2
    drop = lambda found: [{key: value for key, value in line.items() if key != 'seconds'} for line in found]
    assert drop(lines(tmp_path)) == drop(lines(whole))
    assert checkpoints.steps() == [5, 10]


def test_a_second_interrupt_ends_at_once(tmp_path):
    twice = lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Script(at_step={6: twice}))


def test_a_finished_run_does_nothing_when_repeated(tmp_path):
    run(tmp_path, Script())
    before = (tmp_path / 'metrics.jsonl').read_text()
    script = Script()
    state = run(tmp_path, script)
    assert script.calls == []
    assert float(state.total) == 55
    assert (tmp_path / 'metrics.jsonl').read_text() == before


def test_early_stopping_counts_evaluations_without_a_better_accuracy(tmp_path):
    accuracies = {3.0: 0.5, 10.0: 0.6, 21.0: 0.6, 36.0: 0.55, 55.0: 0.9}  # after 2, 4, 6, 8 steps
    state = run(tmp_path, Script(accuracies), evaluate_every=2, early_stopping=2)
    assert float(state.total) == 36
    assert Checkpoints(str(tmp_path)).best() == 4
    script = Script(accuracies)
    run(tmp_path, script, evaluate_every=2, early_stopping=2)
    assert script.calls == []


def test_too_many_bad_steps_in_a_row_stop_the_run_and_name_the_step(tmp_path):
    with pytest.raises(UserError, match='not finite in . steps in a row, 7 to .*the checkpoint of step 5 is kept'):
        run(tmp_path, Script(bad=range(6, 10)), max_bad_steps=3)
    assert (
        restore_latest(Checkpoints(str(tmp_path)), {'total': jnp.zeros(())}, {'lowered': jnp.zeros(())})[2]['step'] == 5
    )


def test_a_few_bad_steps_are_borne_and_logged_as_null(tmp_path):
    state = run(tmp_path, Script(bad=[1]), max_bad_steps=3)
    assert float(state.total) == 55
    assert lines(tmp_path)[0]['train/loss'] is None
    assert lines(tmp_path)[1]['train/loss'] == 3.5


def test_bad_steps_are_found_at_the_next_reading_of_the_metrics(tmp_path):
    with pytest.raises(UserError, match='in 3 steps in a row, 1 to 3; no checkpoint was written yet'):
        run(tmp_path, Script(bad=range(100)), total_steps=100, log_every=10, evaluate_every=100, max_bad_steps=3)


def test_a_row_of_bad_steps_that_ended_before_the_reading_still_stops_the_run(tmp_path):
    with pytest.raises(UserError, match='in 3 steps in a row, 3 to 5;'):
        run(tmp_path, Script(bad=range(2, 6)), log_every=10, evaluate_every=10, max_bad_steps=3)


def test_what_goes_wrong_in_writing_the_last_checkpoint_is_raised(tmp_path, monkeypatch):
    def full(*_):
        raise ValueError('No space left on device')

    monkeypatch.setattr('orbax.checkpoint.Checkpointer.save', full)
    with pytest.raises(OSError, match='No space left'):
        run(tmp_path, Script())


def test_without_anything_to_choose_by_members_are_kept_and_nothing_is_evaluated(tmp_path):
    script = Script()
    hooks = dataclasses.replace(script.hooks, evaluate=None)
    checkpoints = Checkpoints(str(tmp_path), 3)
    state = run_loop(options(total_steps=12, snapshot_every=4), fresh(), hooks, checkpoints, str(tmp_path))
    assert float(state.total) == 78
    assert float(state.lowered) == 0
    assert [call[0] for call in script.calls] == ['advance'] * 12
    assert [line['step'] for line in lines(tmp_path)] == [3, 6, 9, 12]
    assert checkpoints.members(9) == [4, 8, 12]
    assert checkpoints.best() is None
    other = tmp_path / 'other'
    other.mkdir()
    run_loop(options(), fresh(), hooks, Checkpoints(str(other), 3), str(other))
    assert Checkpoints(str(other)).members(9) == [5, 10]


def test_the_share_of_waiting_is_of_the_steps_since_the_last_log_point_and_not_of_evaluations(tmp_path):
    waited = [0.0]

    def step(seconds, waits):
        waited[0] += waits
        time.sleep(seconds)

    script = Script(at_step={step_: functools.partial(step, 0.1, 0.05) for step_ in range(3)})
    script.at_step[5] = functools.partial(step, 0.2, 0.2)
    evaluate = lambda state: (time.sleep(0.4), script.evaluate(state))[1]
    hooks = dataclasses.replace(script.hooks, waited=lambda: waited[0], evaluate=evaluate)
    run_loop(options(total_steps=6), fresh(), hooks, Checkpoints(str(tmp_path), 3), str(tmp_path))
    shares = {line['step']: line['train/wait_share'] for line in lines(tmp_path)}
    assert list(shares) == [3, 5, 6]
    assert 0.3 < shares[3] <= 0.5
    assert shares[5] == 0
    assert 0.6 < shares[6] <= 1.0
    unasked = tmp_path / 'unasked'
    run(unasked, Script())
    assert 'train/wait_share' not in lines(unasked)[0]
