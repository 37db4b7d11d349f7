"""What the states of all tasks share: how they come apart for a checkpoint, and what a step makes of them."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array


class TaskState:
    """Base of a task's state, a flax dataclass with at least the fields below and those that a step changes.

    Attributes:
        trained: the name of the field that holds the trained parameters.
        fixed: names of fields that no step changes; they are in no checkpoint.
        step: int32, steps done.
        average: exponential moving average of the field `trained`, or None.
        bad_steps: int32, steps in a row whose loss or gradient was not finite; such a step changes nothing else.
        worst: int32 [2], the longest such row since the run began, and the number of its last step.
    """

    trained: ClassVar[str]
    fixed: ClassVar[tuple[str, ...]] = ()

    @property
    def _evaluated(self) -> str:
        return self.trained if self.average is None else 'average'

    def split(self) -> tuple[Any, dict[str, Any]]:
        """What is evaluated (the average where there is one), and all else that a resumed run needs."""
        rest = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in self.fixed
        }
        model = rest.pop(self._evaluated)
        return model, {name: value for name, value in rest.items() if value is not None}

    def join(self, model: Any, rest: dict[str, Any]) -> TaskState:
        """The inverse of `split`, for a state of the same kind."""
        return self.replace(**{self._evaluated: model}, **rest)

    def advance(self, loss: Array, gradients: Any, ema: float, **changed: Any) -> TaskState:
        """The state after a step: with `changed` where loss and gradients are finite, else as it was but for counts.

        Args:
            loss, gradients: of the step.
            ema: decay of the average. It grows to its value, so that the first average is not the random start (as in
                tf.train.EMA).
            changed: the new values of fields, the one named by `trained` among them.
        """
        finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradients))
        keep_finite = lambda new, old: jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
        changed = {name: keep_finite(new, getattr(self, name)) for name, new in changed.items()}
        if self.average is not None:
            decay = jnp.minimum(ema, (1.0 + self.step) / (10.0 + self.step))
            moved = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, self.average, changed[self.trained])
            changed['average'] = keep_finite(moved, self.average)
        bad_steps = jnp.where(finite, 0, self.bad_steps + 1)
        return self.replace(
            step=self.step + 1,
            bad_steps=bad_steps,
            worst=jnp.where(bad_steps > self.worst[0], jnp.stack([bad_steps, self.step + 1]), self.worst),
            **changed,
        )


def no_steps() -> dict[str, Array]:
    """The counts of a fresh state: `step`, `bad_steps` and `worst`."""
    zero = lambda *shape: jnp.zeros(shape, jnp.int32)
    return {'step': zero(), 'bad_steps': zero(), 'worst': zero(2)}
