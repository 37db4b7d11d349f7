"""A pair of translators on several devices and in two processes: its step alone, and through the train command."""

import functools

import jax
import numpy as np
import optax
import pytest

from fer_jax import experiment, train
from fer_jax.data.feed import ResidentFeed
from fer_jax.data.pairs import PairFeed, select_pair
from fer_jax.models.cyclegan import Discriminator, Generator
from fer_jax.training import cyclegan
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.dispatch import make_advance
from fer_jax.training.mesh import make_placement
from tests.launches import PAIR, finish, launch_two, log, restore_latest, trees, words

pytestmark = pytest.mark.soak

LAST = PAIR['train__steps']


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A run of two processes with four devices each."""
    workdir = tmp_path_factory.mktemp('whole') / 'run'
    assert [finish(process, 900) for process in launch_two(workdir, PAIR, devices=4)] == [0, 0], words(workdir, 0)
    return workdir


@pytest.fixture(scope='module', params=[1, 2, 8])
def apart(request, whole, tmp_path_factory, make_config, make_dataset):
    """By how much the losses of ten steps on so many devices of one process differ from those of two processes."""
    workdir = tmp_path_factory.mktemp('one') / 'run'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, 'load_prepared', lambda _: make_dataset((120, 32, 8)))
        patch.setattr(jax, 'devices', lambda *_: jax.local_devices()[: request.param])
        train.train(make_config(**PAIR), str(workdir))
    one, other = ([line['train/loss'] for line in log(place)][:10] for place in (workdir, whole))
    found = np.abs(np.subtract(one, other)) / other
    print(f'losses differ by {found[:5].max():.1e} in five steps, by {found.max():.1e} in ten')
    return found


def test_a_pair_trains_alike_for_five_steps_on_any_number_of_devices(apart):
    assert apart[:5].max() <= 1e-5


@pytest.mark.xfail(reason="what is wanted: Adam's first steps go by the signs of gradients, near zero by rounding")
def test_a_pair_trains_alike_on_any_number_of_devices(apart):
    assert apart.max() <= 1e-5


def test_what_two_processes_saved_of_a_pair_comes_back_exactly_on_other_numbers_of_devices(whole):
    written = trees(whole, LAST)
    for devices in (8, 1, 2):
        replicated = make_placement(devices=jax.devices()[:devices]).replicated
        wanted = jax.tree.map(lambda array: jax.device_put(np.zeros_like(array), replicated), written)  # noqa: B023
        *found, position = restore_latest(Checkpoints(str(whole)), *wanted)
        assert position['step'] == LAST
        assert {leaf.sharding for leaf in jax.tree.leaves(found)} == {replicated}
        jax.tree.map(np.testing.assert_array_equal, found, written)


def train_pair(dataset, devices):
    """Losses of ten steps of a pair of translators with pools and an average, and the last state."""
    placement = make_placement(8, jax.devices()[:devices])
    task = cyclegan.Task(
        generator=Generator(1, blocks=0, width=2),
        discriminator=Discriminator((2, 4)),
        optimizer=optax.adam(2e-4, b1=0.5),
        size=12,
        channels=1,
        pool=10,
        ema=0.9,
    )
    state = placement.everywhere(cyclegan.init_state(task, jax.random.key(0)))
    where = {'everywhere': placement.replicated, 'cut': placement.split(1)}
    feed = PairFeed(
        select_pair(dataset, ('anger', 'fear')), 3, lambda split, seed: ResidentFeed(split, seed, 8, **where)
    )
    advance = make_advance(functools.partial(cyclegan.train_step, task), feed, placement, 3)
    losses = []
    for step in range(10):
        state, sums = advance(state, step, 1)
        losses.append(float(sums['loss']))
    return losses, jax.device_get(state)


@pytest.fixture(scope='module')
def pair_on_eight(dataset):
    return train_pair(dataset, 8)


@pytest.mark.parametrize('devices', [1, 2])
def test_a_pair_trains_alike_on_fewer_devices(dataset, pair_on_eight, devices):
    np.testing.assert_allclose(train_pair(dataset, devices)[0], pair_on_eight[0], rtol=1e-5)


def test_a_pair_on_the_same_devices_is_the_same_to_the_bit(dataset, pair_on_eight):
    again = train_pair(dataset, 8)
    assert again[0] == pair_on_eight[0]
    jax.tree.map(np.testing.assert_array_equal, again[1], pair_on_eight[1])
