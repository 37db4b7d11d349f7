"""What passes between the train command and a task: the setting of a run, and the job that the task makes of it.

Runs that are trained together have a setting each, and one job, made of the first.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from fer_jax.data.dataset import Dataset
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.mesh import Placement


@dataclasses.dataclass(frozen=True)
class Setting:
    """A run as the train command has prepared it.

    Attributes:
        config: as given.
        dataset: what the task's `narrow` left, images held where they are read again and again.
        placement: of the run's devices.
        workdir: of the run.
        checkpoints: of the workdir.
        schedule: the learning rate as a function of the step.
        member: which of the runs that are trained together it is, from 0.
    """

    config: ConfigDict
    dataset: Dataset
    placement: Placement
    workdir: str
    checkpoints: Checkpoints
    schedule: Callable[[int | jax.Array], float | jax.Array]
    member: int = 0


@dataclasses.dataclass(frozen=True)
class Job:
    """A run as a task has built it.

    Attributes:
        start: of a setting the first state, on the host or one device, a `fer_jax.training.state.TaskState`; and what
            config.json says of where it is from.
        step: a pure `(state, batch, key) -> (state, metrics)`.
        evaluate: `(states) -> metrics of each`; None where there is nothing to measure on.
        after_evaluation, learning_rate, pictures: see `fer_jax.training.hooks.Hooks`.
        chosen_by: see `fer_jax.training.hooks.LoopOptions`.
        pictures_every: the same.
        description: for config.json, at least `preprocessing` and `model_summary`.
        headline: of the line that announces the run, such as `shallow_cnn (120,000 parameters)`.
        finish: what is to be done for a setting once it is trained, called every time the command comes there.
    """

    start: Callable[[Setting], tuple[Any, dict[str, Any]]]
    step: Callable[[Any, dict[str, jax.Array], jax.Array], tuple[Any, dict[str, jax.Array]]]
    evaluate: Callable[[Sequence[Any]], list[dict[str, float]]] | None
    after_evaluation: Callable[[Any, dict[str, float]], Any]
    learning_rate: Callable[[Any, int], float]
    chosen_by: str
    description: dict[str, Any]
    headline: str
    finish: Callable[[Setting], None]
    pictures: Callable[[Any, int], dict[str, os.PathLike[str]]] | None = None
    pictures_every: int = 0
