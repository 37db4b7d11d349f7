import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from fer_jax.config import default_config
from fer_jax.errors import UserError
from fer_jax.training.optimizer import (
    OptimizerOptions,
    ScheduleOptions,
    make_optimizer,
    make_plateau,
    make_schedule,
)


def rates(steps, total=100, per_epoch=10, peak=2.0, **options):
    schedule = make_schedule(ScheduleOptions(**options), peak, total, per_epoch)
    return [float(schedule(step)) for step in steps]


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_constant_and_plateau_stay_at_the_peak():
    assert_close(rates([0, 50, 99], name='constant'), [2, 2, 2])
    assert_close(rates([0, 50, 99], name='plateau'), [2, 2, 2])


def test_cosine_falls_from_the_peak_to_its_end():
    assert_close(rates([0, 25, 50, 75, 100], name='cosine'), [2, 1 + math.sqrt(0.5), 1, 1 - math.sqrt(0.5), 0])
    assert_close(rates([0, 50, 100], name='cosine', end_factor=0.1), [2, 1.1, 0.2])


def test_warmup_is_linear_from_zero_and_the_cosine_takes_what_is_left():
    found = rates([0, 5, 10, 19, 20, 60, 100], name='cosine', warmup_epochs=2.0)
    assert_close(found, [0, 0.5, 1, 1.9, 2, 1, 0])


def test_cycles_restart_at_the_peak():
    assert_close(rates([0, 12.5, 25, 37.5, 50, 75, 100], name='cycles', cycles=4), [2, 1, 2, 1, 2, 2, 0])
    thirds = rates(range(100), name='cycles', cycles=3)
    assert [step for step, rate in enumerate(thirds) if rate == 2.0] == [0, 33, 67]
    assert len(thirds) == 100
    assert_close(rates([10, 55, 100], name='cycles', cycles=2, warmup_epochs=1.0), [2, 2, 0])


def test_a_long_first_cycle_is_followed_by_short_lower_ones():
    options = {'name': 'cycles', 'cycles': 4, 'first_cycle': 7.0, 'restart_factor': 0.5}
    assert_close(rates([0, 35, 70, 75, 80, 90, 100], **options), [2, 1, 1, 0.5, 1, 1, 0])


def test_step_decay_starts_late_and_then_falls_at_every_interval():
    found = rates(
        [0, 29, 30, 39, 40, 49, 50], name='step', step_start_epochs=3.0, step_every_epochs=1.0, step_factor=0.8
    )
    assert_close(found, [2, 2, 1.6, 1.6, 1.28, 1.28, 1.024])
    sparse = rates([29, 30, 49, 50], name='step', step_start_epochs=3.0, step_every_epochs=2.0, step_factor=0.5)
    assert_close(sparse, [2, 1, 1, 0.5])


def test_step_decay_counts_its_start_from_the_beginning_of_the_run_with_warmup_too():
    options = {'name': 'step', 'step_start_epochs': 3.0, 'step_every_epochs': 1.0, 'step_factor': 0.5}
    assert_close(rates([5, 10, 29, 30, 40], warmup_epochs=1.0, **options), [1, 2, 2, 1, 0.5])


def test_step_decay_may_start_before_one_interval_has_passed():
    assert_close(rates([0, 9, 10, 29, 30], name='step', step_start_epochs=1.0, step_every_epochs=2.0, step_factor=0.5),
          [2, 2, 1, 1, 0.5])  # fmt: skip


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'name': 'lines'}, 'constant, step, cosine, linear, cycles, plateau'),
        ({'warmup_epochs': 10.0}, 'warmup_epochs takes 100 steps; the whole run has 100'),
        ({'name': 'cycles', 'cycles': 0}, 'cycles is 0'),
        ({'name': 'cycles', 'cycles': 101}, 'cycles is 101'),
        ({'name': 'cycles', 'cycles': 3, 'first_cycle': 0.0}, 'first_cycle is 0.0; every cycle takes'),
        ({'name': 'cycles', 'cycles': 3, 'first_cycle': 990.0}, 'first_cycle is 990.0; every cycle takes'),
    ],
)
def test_a_schedule_that_does_not_fit_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        rates([0], **options)


def test_the_configuration_has_the_options_and_their_defaults():
    config = default_config()
    assert OptimizerOptions(**config.optimizer) == OptimizerOptions()
    assert ScheduleOptions(**config.schedule) == ScheduleOptions()
    assert isinstance(config.schedule, ConfigDict)


PARAMS = {'kernel': np.array([[1.0, -2.0], [0.5, 3.0]], np.float32), 'bias': np.array([0.3, -0.7], np.float32)}
GRADIENTS = [
    {'kernel': np.array([[0.1, 0.2], [-0.3, 0.4]], np.float32), 'bias': np.array([0.5, -0.1], np.float32)},
    {'kernel': np.array([[-0.2, 0.1], [0.1, 0.9]], np.float32), 'bias': np.array([0.2, 0.3], np.float32)},
    {'kernel': np.array([[0.4, 0.0], [0.2, -0.4]], np.float32), 'bias': np.array([-0.6, 0.1], np.float32)},
]


def ours(gradients=GRADIENTS, **options):
    rule = make_optimizer(OptimizerOptions(**options), optax.constant_schedule(options.get('learning_rate', 1e-3)))
    params, state = jax.tree.map(jnp.asarray, PARAMS), rule.init(PARAMS)
    for gradient in gradients:
        changes, state = rule.update(gradient, state, params)
        params = optax.apply_updates(params, changes)
    return params


@pytest.mark.parametrize(
    ('options', 'name', 'theirs'),
    [
        ({'name': 'sgd', 'nesterov': False}, 'SGD', {'momentum': 0.9}),
        ({'name': 'sgd', 'nesterov': True, 'momentum': 0.8}, 'SGD', {'momentum': 0.8, 'nesterov': True}),
        ({'name': 'sgd', 'momentum': 0.0, 'nesterov': False}, 'SGD', {}),
        ({'name': 'sgd', 'weight_decay': 0.1}, 'SGD', {'momentum': 0.9, 'nesterov': True}),
        ({'name': 'adam', 'b1': 0.8, 'b2': 0.95}, 'Adam', {'betas': (0.8, 0.95)}),
        ({'name': 'adam', 'weight_decay': 0.1}, 'Adam', {}),
        ({'name': 'adamw', 'weight_decay': 0.1}, 'AdamW', {}),
    ],
)
def test_three_updates_equal_pytorchs_with_decay_on_kernels_only(options, name, theirs):
    torch = pytest.importorskip('torch', reason='the reference implementation')
    params = {key: torch.nn.Parameter(torch.tensor(value)) for key, value in PARAMS.items()}
    groups = [
        {'params': [params['kernel']], 'weight_decay': options.get('weight_decay', 0.0)},
        {'params': [params['bias']], 'weight_decay': 0.0},
    ]
    rule = getattr(torch.optim, name)(groups, lr=0.05, **theirs)
    for gradient in GRADIENTS:
        for key, value in gradient.items():
            params[key].grad = torch.tensor(value)
        rule.step()
    found = ours(learning_rate=0.05, **options)
    for key in PARAMS:
        np.testing.assert_allclose(found[key], params[key].detach().numpy(), atol=2e-6)


def plain_step(**options):
    """The change that one gradient makes under plain descent with rate one."""
    options = {'name': 'sgd', 'momentum': 0.0, 'nesterov': False, 'learning_rate': 1.0} | options
    return jax.tree.map(lambda after, before: np.asarray(before - after), ours(GRADIENTS[:1], **options), PARAMS)


def test_clipping_by_value_cuts_each_and_by_norm_scales_all():
    gradient = GRADIENTS[0]
    cut = plain_step(clip_value=0.25)
    np.testing.assert_allclose(cut['kernel'], [[0.1, 0.2], [-0.25, 0.25]], atol=1e-6)
    np.testing.assert_allclose(cut['bias'], [0.25, -0.1], atol=1e-6)
    norm = math.sqrt(0.01 + 0.04 + 0.09 + 0.16 + 0.25 + 0.01)
    scaled = plain_step(clip_norm=0.5)
    np.testing.assert_allclose(scaled['kernel'], gradient['kernel'] * 0.5 / norm, atol=1e-6)
    np.testing.assert_allclose(scaled['bias'], gradient['bias'] * 0.5 / norm, atol=1e-6)
    np.testing.assert_allclose(plain_step(clip_norm=1.0)['kernel'], gradient['kernel'], atol=1e-6)


def test_weight_decay_is_not_clipped():
    change = plain_step(clip_value=0.01, weight_decay=0.1)
    np.testing.assert_allclose(
        change['kernel'], 0.1 * PARAMS['kernel'] + 0.01 * np.sign(GRADIENTS[0]['kernel']), atol=1e-6
    )


def test_an_unknown_rule_is_refused():
    with pytest.raises(UserError, match='sgd, adam'):
        make_optimizer(OptimizerOptions('lamb'), optax.constant_schedule(1.0))


def test_plateau_halves_after_as_many_evaluations_without_a_lower_loss():
    plateau = make_plateau(ScheduleOptions(plateau_patience=3))
    state, scales = plateau.init(PARAMS), []
    for loss in [1.0, 0.9, 0.95, 0.9, 0.91, 0.92, 0.93, 0.94, 0.5, 0.6, 0.6, 0.6]:
        _, state = plateau.update({}, state, value=loss)
        scales.append(float(state.scale))
    assert scales == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.125]


def test_linear_is_constant_and_then_falls_to_its_end():
    rate = make_schedule(ScheduleOptions(name='linear'), 2e-4, 100, 10.0)
    assert [float(rate(step)) for step in (0, 49, 50)] == pytest.approx([2e-4] * 3)
    assert [float(rate(step)) for step in (75, 99, 100)] == pytest.approx([1e-4, 4e-6, 0], abs=1e-9)
    late = make_schedule(ScheduleOptions(name='linear', constant_share=0.8, end_factor=0.5), 1.0, 100, 10.0)
    assert [float(late(step)) for step in (80, 90, 100)] == pytest.approx([1.0, 0.75, 0.5])
