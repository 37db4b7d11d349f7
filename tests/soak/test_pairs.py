"""A pair of translators on several devices and in two processes, through the train command."""

import jax
import numpy as np
import pytest

from fer_jax import experiment, train
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.mesh import make_placement
from tests.launches import PAIR, finish, launch_two, log, trees, words

pytestmark = pytest.mark.soak

LAST = PAIR['train__steps']


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A run of two processes with four devices each."""
    workdir = tmp_path_factory.mktemp('whole') / 'run'
    assert [finish(process, 900) for process in launch_two(workdir, PAIR, devices=4)] == [0, 0], words(workdir, 0)
    return workdir


@pytest.mark.parametrize('devices', [1, 2, 8])
def test_a_pair_trains_alike_on_any_number_of_devices(whole, tmp_path, monkeypatch, make_config, make_dataset, devices):
    monkeypatch.setattr(experiment, 'load_prepared', lambda _: make_dataset((120, 32, 8)))
    monkeypatch.setattr(jax, 'devices', lambda *_: jax.local_devices()[:devices])
    train.train(make_config(**PAIR), str(tmp_path))
    one, other = ([line['train/loss'] for line in log(workdir)][:10] for workdir in (tmp_path, whole))
    np.testing.assert_allclose(one, other, rtol=1e-5)


def test_what_two_processes_saved_of_a_pair_comes_back_exactly_on_other_numbers_of_devices(whole):
    written = trees(whole, LAST)
    for devices in (8, 1, 2):
        replicated = make_placement(devices=jax.devices()[:devices]).replicated
        wanted = jax.tree.map(lambda array: jax.device_put(np.zeros_like(array), replicated), written)  # noqa: B023
        *found, position = Checkpoints(str(whole)).restore_latest(*wanted)
        assert position['step'] == LAST
        assert {leaf.sharding for leaf in jax.tree.leaves(found)} == {replicated}
        jax.tree.map(np.testing.assert_array_equal, found, written)
