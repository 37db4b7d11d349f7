"""One run's account: what its steps and evaluations have come to, its record, its checkpoints, and why it ended."""

from __future__ import annotations

import json
import os
from typing import Any

import jax
import numpy as np

from fer_jax import distributed
from fer_jax.errors import UserError
from fer_jax.training.hooks import LoopOptions, Member
from fer_jax.training.record import Record

ENDED_JSON = 'ended.json'
_KEPT = ('sums', 'sum_steps', 'best', 'waited')  # of a checkpoint's position


class Account:
    """What the loop keeps of one run, which may be one of several that are trained together.

    Attributes:
        checkpoints: of the run.
        failed: why it cannot go on, in words; '' while it can.
    """

    def __init__(self, options: LoopOptions, member: Member, alone: bool):
        """`alone` says that no others go through the loop with it: then it raises what else it keeps in `failed`."""
        self.options, self.checkpoints = options, member.checkpoints
        self.failed = ''
        self.best, self.waited = -np.inf, 0
        self.sums: dict[str, float] = {}  # of the metrics since the last log point
        self.sum_steps = 0
        self._directory, self._alone = member.directory, alone
        self._record: Record | None = None
        self._unread: list[dict[str, jax.Array]] = []
        self._late_entry: dict[str, float] | None = None

    @property
    def ended(self) -> bool:
        """Whether it is not trained on, although others may be."""
        return bool(self.failed) or 0 < self.options.early_stopping <= self.waited

    def recall_end(self) -> None:
        """Finds, of a run among several, whether it has ended before them; all processes ask together."""
        path = os.path.join(self._directory, ENDED_JSON)
        if distributed.agree_max(os.path.exists(path)):
            with open(path) as file:
                self.failed = json.load(file)['why']
        elif self.options.early_stopping:
            step = self.checkpoints.newest()
            self.waited = 0 if step is None else self.checkpoints.position(step)['waited']

    def restore(self, step: int, state: Any) -> tuple[Any, dict[str, Any]]:
        """The state of a checkpoint, and its position."""
        model, rest, position = self.checkpoints.restore(step, *state.split())
        for name in _KEPT:
            setattr(self, name, position[name])
        self.best = -np.inf if self.best is None else self.best
        return state.join(model, rest), position

    def open_record(self, step: int) -> None:
        """Goes on with the record after that step; called in one process."""
        self._record = Record(self._directory, step)

    def close(self) -> None:
        """Closes the record and waits for the checkpoint under way, whatever goes wrong with either."""
        try:
            if self._record is not None:
                self._record.close()
        finally:
            self.checkpoints.wait()

    def add(self, sums: dict[str, jax.Array], count: int) -> None:
        """Notes the sums over so many steps, still on the device."""
        self._unread.append(sums)
        self.sum_steps += count

    def is_computed(self) -> bool:
        """Whether all that was noted can be read without waiting."""
        return all(array.is_ready() for array in jax.tree.leaves(self._unread) if isinstance(array, jax.Array))

    def measured(self, value: float | None) -> None:
        """Notes what an evaluation gave for the metric that chooses; None where it has none."""
        if value is not None:
            self.best, self.waited = (value, 0) if value > self.best else (self.best, self.waited + 1)

    def log_later(self, entry: dict[str, float]) -> None:
        """Keeps a log point for `write_late`."""
        self._late_entry = entry

    def write_late(self) -> float | None:
        """Writes the last log point and gives its mean loss; None where there is none.

        Called when it is computed, or else when the next dispatch has been given, so that an accelerator never waits.
        """
        if self._late_entry is None:
            return None
        self.read_sums()
        if self.failed:
            return None
        means = {f'train/{name}': value / self.sum_steps for name, value in self.sums.items()}
        loss = means['train/loss']
        if self._record is not None:
            self._record.write(
                self._late_entry | {name: value if np.isfinite(value) else None for name, value in means.items()}
            )
        self._late_entry, self.sums, self.sum_steps = None, {}, 0
        return loss

    def write_picture(self, step: int, name: str, path: str | os.PathLike[str]) -> None:
        """Adds a picture to the record, in the process that has it."""
        if self._record is not None:
            self._record.write_picture(step, name, path)

    def read_sums(self) -> None:
        """Takes what was noted from the device; too many steps in a row that were not finite end the run."""
        for sums in jax.device_get(self._unread):
            worst, last = (int(number) for number in sums.pop('worst'))
            if worst >= self.options.max_bad_steps and not self.failed:
                self._fail(worst, last)
            for name, value in sums.items():
                self.sums[name] = self.sums.get(name, 0.0) + float(value)
        self._unread = []

    def _fail(self, worst: int, last: int) -> None:
        self.checkpoints.wait()
        kept = self.checkpoints.steps()
        self.failed = (
            f'loss or gradients were not finite in {worst} steps in a row, {last - worst + 1} to {last}; '
            + (f'the checkpoint of step {kept[-1]} is kept' if kept else 'no checkpoint was written yet')
            + '; take a lower config.optimizer.learning_rate or set config.optimizer.clip_norm, in another --workdir'
        )
        if self._alone:
            raise UserError(self.failed)
        if distributed.is_main():  # so that the others can be taken up without it
            path = os.path.join(self._directory, ENDED_JSON)
            with open(path + '.new', 'w') as file:
                json.dump({'why': self.failed}, file, indent=2)
            os.replace(path + '.new', path)

    def save(self, state: Any, position: dict[str, Any]) -> None:
        """Starts writing a checkpoint; `position` is what the loop knows of it."""
        position = position | {name: getattr(self, name) for name in _KEPT}
        # A copy of the sums: they grow while the checkpoint is being written.
        position |= {'sums': dict(self.sums), 'best': self.best if np.isfinite(self.best) else None}
        self.checkpoints.save(*state.split(), position)
