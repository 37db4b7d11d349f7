"""Learning-rate schedules and optimisers by name, all optax's."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import jax
import optax

from fer_jax.errors import UserError
from fer_jax.training.muon import muon


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
    """See `config.optimizer`; weight decay touches only arrays of two or more dimensions (no biases, no norms)."""

    name: str = 'adamw'
    learning_rate: float = 1e-3
    scale_rate: str = 'none'
    base_batch_size: int = 0
    momentum: float = 0.9
    nesterov: bool = True
    b1: float = 0.9
    b2: float = 0.999
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    clip_value: float = 0.0


@dataclasses.dataclass(frozen=True)
class ScheduleOptions:
    """See `config.schedule`; lengths are in epochs."""

    name: str = 'cosine'
    warmup_epochs: float = 0.0
    end_factor: float = 0.0
    step_start_epochs: float = 20.0
    step_every_epochs: float = 1.0
    step_factor: float = 0.8
    cycles: int = 1
    first_cycle: float = 1.0
    restart_factor: float = 1.0
    constant_share: float = 0.5
    plateau_factor: float = 0.5
    plateau_patience: int = 5


def peak_rate(options: OptimizerOptions, batch_size: int) -> float:
    """The peak for a batch of that many images over all devices: the rate given, scaled as the options say.

    Raises:
        UserError: for an unknown rule, a rule without the batch that it starts from, or such a batch without a rule.
    """
    rules = {'none': 0.0, 'linear': 1.0, 'sqrt': 0.5}
    rule, base = options.scale_rate, options.base_batch_size
    if rule not in rules:
        raise UserError(f'config.optimizer.scale_rate is {rule!r}; it can be {", ".join(rules)}')
    if rule == 'none' and base:
        raise UserError(
            f'config.optimizer.base_batch_size is {base}, and scale_rate=none scales nothing; '
            'set config.optimizer.scale_rate=linear or sqrt, or leave base_batch_size at 0'
        )
    if rule == 'none':
        return options.learning_rate
    if base < 1:
        raise UserError(
            f'config.optimizer.scale_rate={rule} needs the batch that learning_rate was found with; '
            'set config.optimizer.base_batch_size'
        )
    return options.learning_rate * (batch_size / base) ** rules[rule]


def make_schedule(
    options: ScheduleOptions, peak: float, total_steps: int, steps_per_epoch: float
) -> Callable[[int | jax.Array], float | jax.Array]:
    """Learning rate as a function of the step.

    `plateau` is constant here: the loop lowers it by `make_plateau` when validation asks for it.

    Raises:
        UserError: for an unknown name, or lengths that do not fit the run.
    """
    warmup = round(options.warmup_epochs * steps_per_epoch)
    if warmup >= total_steps and warmup > 0:
        raise UserError(f'config.schedule.warmup_epochs takes {warmup} steps; the whole run has {total_steps}')
    after = total_steps - warmup
    if options.name in ('constant', 'plateau'):
        main = optax.constant_schedule(peak)
    elif options.name == 'cosine':
        main = optax.cosine_decay_schedule(peak, after, options.end_factor)
    elif options.name == 'linear':
        constant = round(after * options.constant_share)
        main = optax.linear_schedule(peak, peak * options.end_factor, max(1, after - constant), constant)
    elif options.name == 'cycles':
        if not 1 <= options.cycles <= after:
            raise UserError(f'config.schedule.cycles is {options.cycles}; 1 to {after} fit this run')
        unit = after / (options.first_cycle + options.cycles - 1)
        edges = [0, *(round(unit * (options.first_cycle + cycle)) for cycle in range(options.cycles))]
        if len(set(edges)) <= options.cycles or unit < 0:
            raise UserError(f'config.schedule.first_cycle is {options.first_cycle}; every cycle takes a step or more')
        peaks = [peak] + [peak * options.restart_factor] * (options.cycles - 1)
        parts = [
            optax.cosine_decay_schedule(height, end - start, options.end_factor)
            for height, (start, end) in zip(peaks, itertools.pairwise(edges), strict=True)
        ]
        main = optax.join_schedules(parts, edges[1:-1])
    elif options.name == 'step':
        start = round(options.step_start_epochs * steps_per_epoch)
        every = max(1, round(options.step_every_epochs * steps_per_epoch))
        decay = optax.exponential_decay(peak * options.step_factor, every, options.step_factor, staircase=True)
        main = optax.join_schedules([optax.constant_schedule(peak), decay], [max(start - warmup, 0)])
    else:
        names = 'constant, step, cosine, linear, cycles, plateau'
        raise UserError(f'config.schedule.name is {options.name!r}; it can be {names}')
    if not warmup:
        return main
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), main], [warmup])


def make_optimizer(options: OptimizerOptions, schedule: Callable) -> optax.GradientTransformation:
    """The optimiser: clipping, then the rule, then weight decay as the rule has it.

    Raises:
        UserError: for an unknown name.
    """
    decay = options.weight_decay
    coupled = [optax.add_decayed_weights(decay, _kernels)] if decay else []
    if options.name == 'sgd':
        rule = [*coupled, optax.sgd(schedule, options.momentum or None, options.nesterov)]
    elif options.name == 'adam':
        rule = [*coupled, optax.adam(schedule, options.b1, options.b2)]
    elif options.name == 'adamw':
        rule = [optax.adamw(schedule, options.b1, options.b2, weight_decay=decay, mask=_kernels)]
    elif options.name == 'muon':
        rule = [_muon(options, schedule)]
    else:
        raise UserError(f'config.optimizer.name is {options.name!r}; it can be sgd, adam, adamw or muon')
    clips = [optax.clip(options.clip_value)] if options.clip_value else []
    clips += [optax.clip_by_global_norm(options.clip_norm)] if options.clip_norm else []
    return optax.chain(*clips, *rule)


def _muon(options: OptimizerOptions, schedule: Callable) -> optax.GradientTransformation:
    """Muon for kernels; Adam at a tenth of the rate for biases, norms and the head.

    The head's few outputs are no matrix to orthogonalise.
    """
    return muon(
        schedule,
        lambda step: 0.1 * schedule(step),
        is_matrix=lambda path, array: array.ndim > 1 and all(getattr(key, 'key', None) != 'head' for key in path),
        beta=options.momentum,
        nesterov=options.nesterov,
        weight_decay=options.weight_decay,
        b1=options.b1,
        b2=options.b2,
    )


def make_plateau(options: ScheduleOptions) -> optax.GradientTransformationExtraArgs:
    """`optax.contrib.reduce_on_plateau`, fed once per evaluation with the validation loss."""
    return optax.contrib.reduce_on_plateau(options.plateau_factor, options.plateau_patience, rtol=1e-4, min_scale=1e-4)


def _kernels(params):
    return jax.tree.map(lambda array: array.ndim > 1, params)
