"""What the loop is given: lengths and cadences, what it calls, and the runs that go through it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax

from fer_jax.training.checkpoints import Checkpoints


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


@dataclasses.dataclass(frozen=True)
class Member:
    """A run that goes through the loop, alone or with others.

    Attributes:
        state: fresh. `state.split()` gives what evaluation reads and the rest, each a checkpoint item of its own;
            `state.join(model, rest)` puts them together again.
        checkpoints: its own.
        directory: where its record lies.
    """

    state: Any
    checkpoints: Checkpoints
    directory: str
