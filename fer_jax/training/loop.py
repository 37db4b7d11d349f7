"""The one loop: advances a state in dispatches, logs, evaluates, keeps checkpoints, stops and goes on.

It knows no loss by name: `advance` sums whatever metrics its step has, `evaluate` reports whatever it measures.
Several runs can go through it together, step by step, each with its own record and checkpoints.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from fer_jax import distributed
from fer_jax.training.account import Account
from fer_jax.training.checkpoints import Checkpoints, newest_of_all
from fer_jax.training.hooks import Hooks, LoopOptions, Member
from fer_jax.training.stopping import Signals, Stopped


def run_loop(options: LoopOptions, state: Any, hooks: Hooks, checkpoints: Checkpoints, record_dir: str) -> Any:
    """Trains to the end, from the newest checkpoint if there is one.

    Args:
        state: see `Member`.

    Returns:
        The final state.

    Raises:
        Stopped: after SIGTERM or SIGINT, once a checkpoint is written.
        UserError: after too many non-finite steps in a row; the last good checkpoint stays.
    """

    def advance(states, step, count, _):
        state, sums = hooks.advance(states[0], step, count)
        return [state], [sums]

    evaluate = hooks.evaluate and (lambda states: [hooks.evaluate(states[0])])
    of_one = dataclasses.replace(hooks, advance=advance, evaluate=evaluate)
    (state,), _ = run_members(options, [Member(state, checkpoints, record_dir)], of_one)
    return state


def run_members(options: LoopOptions, members: Sequence[Member], hooks: Hooks) -> tuple[list[Any], list[str]]:
    """Trains runs together to their ends, from the newest step of which all have a checkpoint that is whole.

    A member that stops early or is not finite too often in a row is trained no further; its last checkpoint stays, and
    the others do not notice.

    Args:
        hooks: of them, `advance` takes and gives the members' states and sums in lists, and a list of which of them are
            still trained, whose states alone may change; `evaluate` takes the states of these and gives their metrics.

    Returns:
        The final states, and of each member why it could not be trained to its end, '' where it was.

    Raises:
        Stopped: after SIGTERM or SIGINT, once checkpoints are written.
        UserError: as `run_loop`, where there is one member.
    """
    main = distributed.is_main()
    if main:
        for member in members:
            member.checkpoints.tidy()
    loop = _Loop(options, hooks, members)
    with contextlib.ExitStack() as stack:
        for account in loop.accounts:
            stack.callback(account.close)
            if main and not account.ended:
                account.open_record(loop.step)
        bar = tqdm(
            total=options.total_steps,
            initial=loop.step,
            unit='step',
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 15.0,
            disable=not main,
        )
        stack.callback(bar.close)
        signals = stack.enter_context(Signals())
        loop.to_the_end(bar, signals)
    return loop.states, [account.failed for account in loop.accounts]


class _Loop:
    """Counters of a loop in progress, and the accounts of its members."""

    def __init__(self, options: LoopOptions, hooks: Hooks, members: Sequence[Member]):
        self.options, self.hooks = options, hooks
        self.step = 0
        self.seconds = 0.0
        self.stepping = 0.0  # seconds of steps since the last log point, and how long data had been waited for by then
        self.data_waits = hooks.waited()
        self.idle = 0.0  # the share of the last log point
        self.states = [member.state for member in members]
        self.accounts = [Account(options, member, len(members) == 1) for member in members]
        self._resume()

    @property
    def active(self) -> list[int]:
        """Which members are trained on."""
        return [index for index, account in enumerate(self.accounts) if not account.ended]

    def _resume(self) -> None:
        if len(self.accounts) > 1:
            for account in self.accounts:
                account.recall_end()
        active = self.active
        step = newest_of_all([self.accounts[index].checkpoints for index in active])
        for index in active if step is not None else ():
            self.states[index], position = self.accounts[index].restore(step, self.states[index])
            self.step, self.seconds = position['step'], position['seconds']

    def to_the_end(self, bar: tqdm, signals: Signals) -> None:
        options = self.options
        clock = time.perf_counter() - self.seconds
        while self.step < options.total_steps and (active := self.active):
            self._check()
            started = time.perf_counter()
            count = options.count_from(self.step)
            trained = [index in active for index in range(len(self.accounts))]
            self.states, sums = self.hooks.advance(self.states, self.step, count, trained)
            self._write_late(bar)
            for index in active:
                self.accounts[index].add(sums[index], count)
            self.step += count
            self.seconds = time.perf_counter() - clock
            distributed.at_step(self.step)
            bar.update(count)
            if self._is_evaluated():
                self._read_sums()
            self.stepping += time.perf_counter() - started
            metrics = self._evaluate(bar)
            self._draw()
            if any(metrics.values()) or options.at(options.log_every, self.step):
                self._log_later(metrics)
                if jax.process_count() == 1 and all(account.is_computed() for account in self.accounts):
                    self._write_late(bar)  # a CPU's step is done when it has been given, and the next may take long
            scheduled = any(metrics.values()) or options.at(options.checkpoint_every, self.step) or self._is_member()
            stopped_by = signals.reached()
            if scheduled or stopped_by:
                self._write_late(bar)
                self._save(metrics)
            if stopped_by:
                self._stop(stopped_by)
        self._write_late(bar)
        if stopped_by := signals.at_the_end():
            self._stop(stopped_by)

    def _check(self) -> None:
        for account in self.accounts:
            account.checkpoints.check()

    def _stop(self, stopped_by: int) -> None:
        for account in self.accounts:
            account.checkpoints.wait()
        raise Stopped(stopped_by, self.step)

    def _is_evaluated(self) -> bool:
        return self.hooks.evaluate is not None and self.options.at(self.options.evaluate_every, self.step)

    def _evaluate(self, bar: tqdm) -> dict[int, dict[str, float]]:
        """The metrics of the members that are trained on, {} of each where nothing is measured now."""
        active = self.active
        if not self._is_evaluated() or not active:
            return dict.fromkeys(active, {})
        found = _of_process_0(self.hooks.evaluate([self.states[index] for index in active]))
        for index, metrics in zip(active, found, strict=True):
            self.accounts[index].measured(metrics.get(self.options.chosen_by))
            self.states[index] = self.hooks.after_evaluation(self.states[index], metrics)
        values = [metrics[self.options.chosen_by] for metrics in found if self.options.chosen_by in metrics]
        if values:
            best = _in_words([self.accounts[index].best for index in active], 4)
            bar.set_postfix_str(f'{self.options.chosen_by} {_in_words(values, 4)}, best {best}', refresh=False)
        return dict(zip(active, found, strict=True))

    def _draw(self) -> None:
        every = self.options.pictures_every or self.options.evaluate_every
        if self.hooks.pictures is None or not self.options.at(every, self.step):
            return
        for state, account in zip(self.states, self.accounts, strict=True):
            for name, path in self.hooks.pictures(state, self.step).items():
                account.write_picture(self.step, name, path)

    def _is_member(self) -> bool:
        every = self.options.snapshot_every
        scheduled = [self.options.evaluate_every, self.options.checkpoint_every]
        return self.options.at(every, self.step) if every else any(self.options.at(e, self.step) for e in scheduled)

    def _log_later(self, metrics: dict[int, dict[str, float]]) -> None:
        shared = {
            'step': self.step,
            'epoch': self.step / self.options.steps_per_epoch,
            'examples': self.step * self.options.examples_per_step,
        }
        late = {'seconds': round(self.seconds, 3), **self._wait_share()}
        for index, measured in metrics.items():
            rate = self.hooks.learning_rate(self.states[index], self.step - 1)
            self.accounts[index].log_later(shared | {'learning_rate': rate} | late | measured)

    def _wait_share(self) -> dict[str, float]:
        """The share of the time of the steps since the last log point in which the device had no data to work on."""
        waited, before, stepping = self.hooks.waited(), self.data_waits, self.stepping
        self.data_waits, self.stepping = waited, 0.0
        self.idle = 0.0 if waited is None else (waited - before) / stepping
        return {} if waited is None else {'train/wait_share': round(self.idle, 4)}

    def _write_late(self, bar: tqdm) -> None:
        losses = [account.write_late() for account in self.accounts]
        losses = [loss for loss in losses if loss is not None]
        if losses:
            words = f', waits for data {self.idle:.0%}' if self.idle > 0.05 else ''
            bar.set_description(f'loss {_in_words(losses, 3)}{words}', refresh=False)

    def _read_sums(self) -> None:
        for account in self.accounts:
            account.read_sums()

    def _save(self, metrics: dict[int, dict[str, float]]) -> None:
        self._read_sums()
        # None is a save ahead of the others, so that there is always a step of which all have a checkpoint.
        for account in self.accounts:
            account.checkpoints.wait()
        for index, measured in metrics.items():
            account = self.accounts[index]
            position = {'step': self.step, 'seconds': self.seconds, 'metrics': measured}
            position |= {'chosen_by': self.options.chosen_by, 'member': self._is_member()}
            if not account.failed:
                account.save(self.states[index], position)


def _in_words(values: Sequence[float], digits: int) -> str:
    """A number, or of several their mean and range."""
    mean = f'{np.mean(values):.{digits}f}'
    return mean if len(values) == 1 else f'{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})'


def _of_process_0(metrics: list[dict[str, float]]) -> list[dict[str, float]]:
    """Its numbers for all processes, to the bit: they decide on stopping and on the learning rate, in all alike."""
    if jax.process_count() == 1:
        return metrics
    numbers = np.asarray([value for of_member in metrics for value in of_member.values()], np.float64)
    distributed.barrier('evaluated')  # one host may be slower than a collective waits
    numbers = iter(np.asarray(multihost_utils.broadcast_one_to_all(numbers.view(np.uint32))).view(np.float64).tolist())
    return [{name: next(numbers) for name in of_member} for of_member in metrics]
