"""The one loop: advances a state in dispatches, logs, evaluates, keeps checkpoints, stops and goes on.

It knows no loss by name: `advance` sums whatever metrics its step has, `evaluate` reports whatever it measures.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from fer_jax import distributed
from fer_jax.errors import UserError
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.record import Record
from fer_jax.training.stopping import Signals, Stopped


@dataclasses.dataclass(frozen=True)
class LoopOptions:
    """Lengths in steps.

    Attributes:
        total_steps: of the whole run.
        examples_per_step: batch size over all devices.
        steps_per_epoch: training images over batch size.
        log_every, evaluate_every: cadences.
        checkpoint_every: besides one at every evaluation; 0 = only there.
        snapshot_every: checkpoints at its multiples are ensemble members; 0 = all that are not from a stop.
        dispatch: steps per compiled program at most.
        max_bad_steps: non-finite steps in a row before the run stops.
        early_stopping: evaluations without a better one before the run ends; 0 = never.
        chosen_by: the metric of an evaluation whose highest value is best; evaluations without it choose nothing.
        pictures_every: cadence of pictures, where there is a hook for them; 0 = with every evaluation.
    """

    total_steps: int
    examples_per_step: int
    steps_per_epoch: float
    log_every: int
    evaluate_every: int
    checkpoint_every: int = 0
    snapshot_every: int = 0
    dispatch: int = 1
    max_bad_steps: int = 10
    early_stopping: int = 0
    chosen_by: str = 'validation/accuracy'
    pictures_every: int = 0

    def count_from(self, step: int) -> int:
        """Steps of the dispatch that starts at `step`: a pure function of it, so that a resumed run repeats it."""
        cadences = [self.log_every, self.evaluate_every, self.checkpoint_every, self.snapshot_every]
        cadences.append(self.pictures_every)
        stops = [(step // every + 1) * every for every in cadences if every]
        return min(*stops, self.total_steps, step + self.dispatch) - step

    def at(self, every: int, step: int) -> bool:
        """Whether a cadence falls on `step`; every cadence falls on the last step."""
        return bool(every) and step % every == 0 or step == self.total_steps


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What the loop calls.

    Attributes:
        advance: `(state, step, count) -> (state, sums)`: `count` steps in one program; on the device, the sums over
            the steps of `loss` and whatever else a step measures, each a mean over its batch, and `worst` [2], the
            longest row of non-finite steps so far and its last step.
        evaluate: `(state) -> metrics`; None where there is nothing to measure on.
        after_evaluation: `(state, metrics) -> state`, such as lowering the learning rate.
        learning_rate: `(state, step) -> float` that step used, for the record.
        pictures: `(state, step) -> PNG files by name`, drawn for people; None: none are. All processes call it.
        waited: seconds that the device has stood idle for want of data so far; None where it never does.
    """

    advance: Callable[[Any, int, int], tuple[Any, dict[str, jax.Array]]]
    evaluate: Callable[[Any], dict[str, float]] | None
    after_evaluation: Callable[[Any, dict[str, float]], Any]
    learning_rate: Callable[[Any, int], float]
    pictures: Callable[[Any, int], dict[str, os.PathLike[str]]] | None = None
    waited: Callable[[], float | None] = lambda: None


def run_loop(options: LoopOptions, state: Any, hooks: Hooks, checkpoints: Checkpoints, record_dir: str) -> Any:
    """Trains to the end, from the newest checkpoint if there is one.

    Args:
        state: fresh. `state.split()` gives what evaluation reads and the rest, each a checkpoint item of its own;
            `state.join(model, rest)` puts them together again.

    Returns:
        The final state.

    Raises:
        Stopped: after SIGTERM or SIGINT, once a checkpoint is written.
        UserError: after too many non-finite steps in a row; the last good checkpoint stays.
    """
    main = distributed.is_main()
    if main:
        checkpoints.tidy()
    run = _Run(options, hooks, checkpoints)
    state = run.resume(state)
    with contextlib.ExitStack() as stack:
        stack.callback(checkpoints.wait)
        record = stack.enter_context(contextlib.closing(Record(record_dir, run.step))) if main else None
        bar = tqdm(
            total=options.total_steps,
            initial=run.step,
            unit='step',
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 15.0,
            disable=not main,
        )
        stack.callback(bar.close)
        signals = stack.enter_context(Signals())
        return run.to_the_end(state, record, bar, signals)


class _Run:
    """Counters of a run in progress."""

    def __init__(self, options: LoopOptions, hooks: Hooks, checkpoints: Checkpoints):
        self.options, self.hooks, self.checkpoints = options, hooks, checkpoints
        self.step = 0
        self.seconds = 0.0
        self.sums: dict[str, float] = {}  # of the metrics since the last log point
        self.sum_steps = 0
        self.best, self.waited = -np.inf, 0
        self.unread: list[dict[str, jax.Array]] = []
        self.late_entry: dict[str, float] | None = None
        self.stepping = 0.0  # seconds of steps since the last log point, and how long data had been waited for by then
        self.data_waits = hooks.waited()

    def resume(self, state: Any) -> Any:
        restored = self.checkpoints.restore_latest(*state.split())
        if restored is None:
            return state
        model, rest, position = restored
        for name in ('step', 'seconds', 'sums', 'sum_steps', 'best', 'waited'):
            setattr(self, name, position[name])
        self.best = -np.inf if self.best is None else self.best
        return state.join(model, rest)

    def to_the_end(self, state: Any, record: Record | None, bar: tqdm, signals: Signals) -> Any:
        options = self.options
        clock = time.perf_counter() - self.seconds
        while self.step < options.total_steps and not self._early_stop():
            self.checkpoints.check()
            started = time.perf_counter()
            count = options.count_from(self.step)
            state, sums = self.hooks.advance(state, self.step, count)
            self._write_late(record, bar)
            self.unread.append(sums)
            self.sum_steps += count
            self.step += count
            self.seconds = time.perf_counter() - clock
            distributed.at_step(self.step)
            bar.update(count)
            if self._is_evaluated():
                self._read_sums()
            self.stepping += time.perf_counter() - started
            state, metrics = self._evaluate(state, bar)
            self._draw(state, record)
            if metrics or options.at(options.log_every, self.step):
                self.late_entry = self._entry(state) | metrics
            scheduled = metrics or options.at(options.checkpoint_every, self.step) or self._is_member()
            stopped_by = signals.reached()
            if scheduled or stopped_by:
                self._write_late(record, bar)
                self._save(state, metrics, self._is_member())
            if stopped_by:
                self._stop(stopped_by)
        self._write_late(record, bar)
        if stopped_by := signals.at_the_end():
            self._stop(stopped_by)
        return state

    def _stop(self, stopped_by: int) -> None:
        self.checkpoints.wait()
        raise Stopped(stopped_by, self.step)

    def _is_evaluated(self) -> bool:
        return self.hooks.evaluate is not None and self.options.at(self.options.evaluate_every, self.step)

    def _evaluate(self, state: Any, bar: tqdm) -> tuple[Any, dict[str, float]]:
        if not self._is_evaluated():
            return state, {}
        metrics = _of_process_0(self.hooks.evaluate(state))
        value = metrics.get(self.options.chosen_by)
        if value is not None:
            self.best, self.waited = (value, 0) if value > self.best else (self.best, self.waited + 1)
            bar.set_postfix_str(f'{self.options.chosen_by} {value:.4f}, best {self.best:.4f}', refresh=False)
        return self.hooks.after_evaluation(state, metrics), metrics

    def _draw(self, state: Any, record: Record | None) -> None:
        every = self.options.pictures_every or self.options.evaluate_every
        if self.hooks.pictures is None or not self.options.at(every, self.step):
            return
        for name, path in self.hooks.pictures(state, self.step).items():
            if record is not None:
                record.write_picture(self.step, name, path)

    def _is_member(self) -> bool:
        every = self.options.snapshot_every
        scheduled = [self.options.evaluate_every, self.options.checkpoint_every]
        return self.options.at(every, self.step) if every else any(self.options.at(e, self.step) for e in scheduled)

    def _entry(self, state: Any) -> dict[str, float]:
        return {
            'step': self.step,
            'epoch': self.step / self.options.steps_per_epoch,
            'examples': self.step * self.options.examples_per_step,
            'learning_rate': self.hooks.learning_rate(state, self.step - 1),
            'seconds': round(self.seconds, 3),
            **self._wait_share(),
        }

    def _wait_share(self) -> dict[str, float]:
        """The share of the time of the steps since the last log point in which the device had no data to work on."""
        waited, before, stepping = self.hooks.waited(), self.data_waits, self.stepping
        self.data_waits, self.stepping = waited, 0.0
        return {} if waited is None else {'train/wait_share': round((waited - before) / stepping, 4)}

    def _write_late(self, record: Record | None, bar: tqdm) -> None:
        """Writes the last log point; called when the next dispatch is under way, so that the device never waits."""
        if self.late_entry is None:
            return
        self._read_sums()
        means = {f'train/{name}': value / self.sum_steps for name, value in self.sums.items()}
        loss = means['train/loss']
        means = {name: value if np.isfinite(value) else None for name, value in means.items()}
        if record is not None:
            record.write(self.late_entry | means)
        idle = self.late_entry.get('train/wait_share', 0.0)
        words = f', waits for data {idle:.0%}' if idle > 0.05 else ''
        bar.set_description(f'loss {loss:.3f}{words}', refresh=False)
        self.late_entry, self.sums, self.sum_steps = None, {}, 0

    def _read_sums(self) -> None:
        for sums in jax.device_get(self.unread):
            worst, last = (int(number) for number in sums.pop('worst'))
            if worst >= self.options.max_bad_steps:
                self._stop_bad(worst, last)
            for name, value in sums.items():
                self.sums[name] = self.sums.get(name, 0.0) + float(value)
        self.unread = []

    def _stop_bad(self, worst: int, last: int) -> None:
        self.checkpoints.wait()
        kept = self.checkpoints.steps()
        raise UserError(
            f'loss or gradients were not finite in {worst} steps in a row, {last - worst + 1} to {last}; '
            + (f'the checkpoint of step {kept[-1]} is kept' if kept else 'no checkpoint was written yet')
            + '; take a lower config.optimizer.learning_rate or set config.optimizer.clip_norm, in another --workdir'
        )

    def _early_stop(self) -> bool:
        return 0 < self.options.early_stopping <= self.waited

    def _save(self, state: Any, metrics: dict[str, float], member: bool) -> None:
        self._read_sums()
        position = {name: getattr(self, name) for name in ('step', 'seconds', 'sum_steps', 'waited')}
        # A copy of the sums: they grow while the checkpoint is being written.
        position |= {'sums': dict(self.sums), 'best': self.best if np.isfinite(self.best) else None}
        position |= {'metrics': metrics, 'chosen_by': self.options.chosen_by, 'member': member}
        self.checkpoints.save(*state.split(), position)


def _of_process_0(metrics: dict[str, float]) -> dict[str, float]:
    """Its numbers for all processes, to the bit: they decide on stopping and on the learning rate, in all alike."""
    if jax.process_count() == 1:
        return metrics
    numbers = np.asarray(list(metrics.values()), np.float64)
    distributed.barrier('evaluated')  # one host may be slower than a collective waits
    numbers = np.asarray(multihost_utils.broadcast_one_to_all(numbers.view(np.uint32))).view(np.float64)
    return dict(zip(metrics, numbers.tolist(), strict=True))
