"""Members that are trained together, in each of the ways, against each of them trained alone."""

import contextlib
import dataclasses
import functools
import threading

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from fer_jax.data.augment import Augmentation
from fer_jax.data.feed import ResidentFeed, batch_indices
from fer_jax.data.preprocess import Preprocessing
from fer_jax.data.sharded import ShardedFeed
from fer_jax.data.streaming import StreamingFeed
from fer_jax.errors import UserError
from fer_jax.models.norms import BatchNorm
from fer_jax.training import classify
from fer_jax.training.mesh import make_placement
from fer_jax.training.together import advancing, choose_way, steps_on_threads

SEEDS = [5, 6, 7, 8]
ORDER = 3  # the seed of the order of the images


class Net(nn.Module):
    """A convolution, BatchNorm, dropout and a dense layer: quick to compile."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, images, train=False):
        x = BatchNorm(use_running_average=not train)(nn.Conv(4, (3, 3), (2, 2))(images))
        x = nn.Dropout(0.2, deterministic=not train)(nn.relu(x))
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1)), {}


# BatchNorm, dropout, windows, light, mixing, the average and clipping all have state or draw by a member's own seed.
TASK = classify.Task(
    model=Net(),
    optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.05, 0.9)),
    preprocessing=Preprocessing(12, 1, crop=10),
    augmentation=Augmentation(brightness=0.1),
    label_smoothing=0.1,
    mixup=0.4,
    ema=0.9,
)
STEP = functools.partial(classify.train_step, TASK)


@pytest.fixture(scope='module')
def split(dataset):
    train = dataset.splits['train']
    soft = np.random.default_rng(0).dirichlet(np.ones(3), len(train)).astype(np.float32)
    return dataclasses.replace(train, extra={'targets': soft})


def make_feed(split, placement, dispatch, name='resident'):
    order, cut = (split, ORDER, 16, dispatch), {'cut': placement.split(1)}
    if name == 'resident':
        return ResidentFeed(*order, everywhere=placement.replicated, **cut)
    return (ShardedFeed if name == 'sharded' else StreamingFeed)(*order, **cut)


def start(placement):
    return [placement.everywhere(classify.init_state(TASK, jax.random.key(seed))) for seed in SEEDS]


@pytest.fixture(scope='module')
def alone(split):
    """Of each seed the losses of six steps and the state after them, step by step by hand."""
    program, told = jax.jit(STEP), []
    for seed in SEEDS:
        state, losses = classify.init_state(TASK, jax.random.key(seed)), []
        for step in range(6):
            rows = batch_indices(ORDER, step, 1, len(split), 16)[0]
            batch = {
                'images': split.images[rows],
                'labels': split.labels[rows],
                'targets': split.extra['targets'][rows],
            }
            state, metrics = program(state, batch, jax.random.fold_in(jax.random.key(seed), step))
            losses.append(float(metrics['loss']))
        told.append((losses, jax.device_get(state)))
    return told


def together(split, way, devices, counts, feed='resident', stopped=()):
    """Losses per member and dispatch, and the states; members `stopped` are trained no more after the first one."""
    members = len(SEEDS) if way == 'vmap' else 1
    placement = make_placement(16, jax.devices()[:devices], members)
    dispatch, states, losses, step = max(counts), start(placement), [], 0
    with (
        contextlib.closing(make_feed(split, placement, dispatch, feed)) as feed,
        advancing(way, STEP, feed, placement, SEEDS, dispatch, 2) as (advance, spread),
    ):
        for count in counts:
            trained = [step == 0 or index not in stopped for index in range(len(SEEDS))]
            states, sums = advance(states, step, count, trained)
            losses.append([float(one['loss']) if on else None for one, on in zip(sums, trained, strict=True)])
            step += count
        assert spread(lambda some: [int(state.step) for state in some], states)[0] == sum(counts)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(states))
    return losses, jax.device_get(states)


@pytest.mark.parametrize(
    ('way', 'devices', 'counts', 'feed'),
    [
        ('turn', 1, [1] * 6, 'streaming'),
        ('turn', 2, [1] * 6, 'sharded'),
        ('threads', 1, [2, 2, 2], 'streaming'),
        ('vmap', 1, [2, 2, 2], 'resident'),
        ('vmap', 8, [1] * 6, 'sharded'),
    ],
)
def test_each_member_is_the_run_that_it_would_be_alone(split, alone, way, devices, counts, feed):
    losses, states = together(split, way, devices, counts, feed)
    ends = np.cumsum(counts)
    for member, (expected, last) in enumerate(alone):
        sums = [sum(expected[end - count : end]) for end, count in zip(ends, counts, strict=True)]
        np.testing.assert_allclose([of_all[member] for of_all in losses], sums, rtol=1e-5)
        close = functools.partial(np.testing.assert_allclose, atol=2e-4)
        jax.tree.map(close, states[member].variables, last.variables)
        jax.tree.map(close, states[member].average, last.average)


@pytest.mark.parametrize('way', ['turn', 'threads', 'vmap'])
def test_a_member_that_is_trained_no_more_stays_as_it_is_and_the_others_do_not_notice(split, way):
    counts = [1] * 3 if way == 'turn' else [2] * 3  # programs that other tests have compiled
    _, before = together(split, way, 1, counts[:1])
    _, whole = together(split, way, 1, counts)
    losses, states = together(split, way, 1, counts, stopped=(1,))
    jax.tree.map(np.testing.assert_array_equal, states[1], before[1])
    for member in (0, 2, 3):
        jax.tree.map(np.testing.assert_array_equal, states[member], whole[member])
    assert [None in of_all for of_all in losses] == [False, True, True]


def test_members_lie_on_devices_of_their_own_as_far_as_these_divide():
    shape = lambda devices, members: dict(make_placement(16, jax.devices()[:devices], members).mesh.shape)
    assert shape(8, 4) == {'data': 2, 'members': 4}
    assert shape(8, 8) == {'data': 1, 'members': 8}
    assert shape(8, 9) == {'data': 8}
    assert shape(2, 6) == {'data': 1, 'members': 2}
    assert (make_placement(2, members=8).num_devices, make_placement(2, members=8).members) == (1, 8)
    with pytest.raises(UserError, match='a batch of 6 does not divide over 4 devices'):
        make_placement(6, members=2)


def test_two_threads_step_two_members_at_once(split):
    """Each of two threads waits inside its second step for the other one's; the first one compiles."""
    meet = threading.Barrier(2, timeout=60)
    wait = lambda step: np.float32(not step or meet.wait() >= 0)

    def step(state, batch, key):
        told = jax.pure_callback(wait, jax.ShapeDtypeStruct((), np.float32), state.step)
        return state.replace(step=state.step + 1), {'loss': told}

    placement = make_placement(16, jax.devices()[:1])
    with advancing('threads', step, make_feed(split, placement, 1), placement, SEEDS, 1, 2) as (advance, _):
        states, _ = advance(start(placement), 0, 1, [True] * 4)
        states, sums = advance(states, 1, 1, [True] * 4)
    assert [float(one['loss']) for one in sums] == [1] * 4
    assert [int(state.step) for state in states] == [2] * 4


def test_the_way_that_pays():
    assert choose_way('auto', 'gpu', 1) == choose_way('auto', 'gpu', 8) == 'vmap'
    assert (choose_way('auto', 'cpu', 1), choose_way('auto', 'cpu', 2)) == ('threads', 'turn')
    assert choose_way('vmap', 'cpu', 1) == 'vmap' and choose_way('turn', 'cpu', 1) == 'turn'
    with pytest.raises(UserError, match='auto, vmap, threads, turn'):
        choose_way('x', 'cpu', 1)
    with pytest.raises(UserError, match='one process on a CPU, and this run has 2 cpu device'):
        choose_way('threads', 'cpu', 2)


@pytest.mark.parametrize(('members', 'cores', 'steps'), [(9, 2, 2), (8, 2, 1), (9, 4, 4), (9, 16, 1), (6, 4, 2)])
def test_no_core_is_idle_at_the_end_of_a_dispatch(members, cores, steps):
    assert steps_on_threads(members, cores) == steps
    assert members * steps % min(members, cores) == 0
