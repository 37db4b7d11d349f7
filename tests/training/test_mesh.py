import functools

import jax
import numpy as np
import optax
import pytest

from fer_jax.data.augment import Augmentation
from fer_jax.data.feed import ResidentFeed
from fer_jax.data.preprocess import Preprocessing
from fer_jax.errors import UserError
from fer_jax.models.resnet import ResNet
from fer_jax.training import classify
from fer_jax.training.dispatch import make_advance, steps_per_dispatch
from fer_jax.training.mesh import make_placement


def test_a_batch_must_divide_over_the_devices():
    assert make_placement(16).num_devices == 8
    assert make_placement(9, jax.devices()[:3]).num_devices == 3
    with pytest.raises(UserError, match='a batch of 12 does not divide over 8 devices.*train.batch_size=8'):
        make_placement(12)


def test_arrays_are_cut_along_the_axis_asked_for():
    placement = make_placement(8)
    array = jax.device_put(np.zeros((3, 16)), placement.split(1))
    assert {shard.data.shape for shard in array.addressable_shards} == {(3, 2)}
    whole = jax.device_put(np.zeros((3, 16)), placement.replicated)
    assert {shard.data.shape for shard in whole.addressable_shards} == {(3, 16)}


def test_dispatch_is_one_on_a_cpu_unless_asked_otherwise():
    assert [steps_per_dispatch(*pair) for pair in [(0, 'cpu'), (0, 'gpu'), (5, 'cpu'), (5, 'gpu')]] == [1, 32, 5, 5]


def run(dataset, devices, counts, groups=1):
    """Losses per dispatch and the last state of a small ResNet: BatchNorm, dropout, windows and light are on."""
    placement = make_placement(16, devices)
    task = classify.Task(
        model=ResNet(num_classes=3, blocks=(1,), dropout=0.2, norm_groups=groups),
        optimizer=optax.sgd(0.05, 0.9),
        preprocessing=Preprocessing(12, 1, crop=10),
        augmentation=Augmentation(brightness=0.1),
        ema=0.9,
    )
    state = placement.everywhere(classify.init_state(task, jax.random.key(0)))
    where = {'everywhere': placement.replicated, 'cut': placement.split(1)}
    feed = ResidentFeed(dataset.splits['train'], 3, 16, max(counts), **where)
    advance = make_advance(functools.partial(classify.train_step, task), feed, placement, 3, max(counts))
    losses, step = [], 0
    for count in counts:
        state, sums = advance(state, step, count)
        losses.append(float(sums['loss']))
        step += count
    assert int(state.step) == step
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))
    return losses, jax.device_get(state)


@pytest.fixture(scope='module')
def alone(dataset):
    return {groups: run(dataset, jax.devices()[:1], [1] * 10, groups) for groups in (1, 8)}


@pytest.mark.parametrize(('devices', 'groups'), [(2, 1), (8, 1), (2, 8), (8, 8)])
def test_several_devices_train_as_one(dataset, alone, devices, groups):
    losses, state = run(dataset, jax.devices()[:devices], [1] * 10, groups)
    alone = alone[groups]
    np.testing.assert_allclose(losses, alone[0], rtol=1e-5)
    close = functools.partial(np.testing.assert_allclose, atol=2e-4)
    jax.tree.map(close, state.variables, alone[1].variables)
    jax.tree.map(close, state.average, alone[1].average)


def test_groups_are_another_network_than_the_whole_batch(alone):
    assert abs(alone[1][0][0] - alone[8][0][0]) > 1e-3


def test_the_same_devices_give_the_same_bits(dataset):
    first, second = (run(dataset, jax.devices(), [1] * 4, 8) for _ in range(2))
    assert first[0] == second[0]
    jax.tree.map(np.testing.assert_array_equal, first[1], second[1])


def test_several_steps_per_dispatch_are_the_same_steps(dataset, alone):
    losses, state = run(dataset, jax.devices()[:1], [1, 9])
    alone = alone[1]
    np.testing.assert_allclose(losses, [alone[0][0], sum(alone[0][1:])], rtol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-3), state.variables, alone[1].variables)
