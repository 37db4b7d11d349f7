import errno
import os
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.mesh import make_placement
from tests.launches import damage_file, restore_latest, small_disk


def trees(value=0.0):
    """A model and an optimiser's state of several kinds: tuples, scalars, whole numbers, None, bfloat16."""
    random = np.random.default_rng(int(value * 10))
    model = {'params': {'Dense_0': {'kernel': jnp.asarray(random.normal(size=(16, 8)), jnp.float32) + value}}}
    moment = jnp.asarray(random.normal(size=(16, 8)), jnp.bfloat16)
    return model, {'optimizer': (moment, (jnp.asarray(3, jnp.int32), ())), 'average': {'x': jnp.ones(3) * value}}


def position(step, accuracy=None, member=True):
    metrics = {} if accuracy is None else {'validation/accuracy': accuracy}
    return {'step': step, 'member': member, 'metrics': metrics}


def save(checkpoints, step, accuracy=None, member=True, value=0.0):
    checkpoints.save(*trees(value), position(step, accuracy, member))
    checkpoints.wait()


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert [leaf.dtype for leaf in jax.tree.leaves(found)] == [leaf.dtype for leaf in jax.tree.leaves(expected)]


def test_what_is_saved_comes_back_exactly(tmp_path):
    checkpoints = Checkpoints(str(tmp_path))
    assert restore_latest(checkpoints, *trees()) is None
    assert (checkpoints.steps(), checkpoints.best(), checkpoints.members(2)) == ([], None, [])
    save(checkpoints, 7, 0.5, value=1.5)
    model, rest, where = restore_latest(checkpoints, *trees())
    assert_same((model, rest), trees(1.5))
    assert where == position(7, 0.5)
    shapes = jax.eval_shape(lambda: trees()[0])
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), shapes)
    assert_same(checkpoints.restore_model(7, shapes), trees(1.5)[0])


def test_saving_copies_so_that_the_next_step_may_overwrite_its_input(tmp_path):
    checkpoints = Checkpoints(str(tmp_path))
    model, rest = trees(1.0)
    checkpoints.save(model, rest, position(1))
    jax.tree.map(lambda leaf: leaf.delete(), model)
    checkpoints.wait()
    assert_same(restore_latest(checkpoints, *trees())[0], trees(1.0)[0])


def test_the_last_members_the_best_and_the_latest_are_kept(tmp_path):
    checkpoints = Checkpoints(str(tmp_path), keep_last=2)
    plan = [(1, 0.2, True), (2, 0.9, True), (3, 0.9, True), (4, 0.5, True), (5, None, False), (6, 0.6, True)]
    kept = []
    for step, accuracy, member in plan:
        save(checkpoints, step, accuracy, member)
        kept.append(checkpoints.steps())
    assert kept == [[1], [1, 2], [2, 3], [2, 3, 4], [2, 3, 4, 5], [2, 4, 6]]
    assert checkpoints.best() == 2  # the earlier of equals
    assert checkpoints.members(2) == [4, 6]
    assert checkpoints.members(9) == [2, 4, 6]
    assert not [name for name in os.listdir(checkpoints.directory) if not name.isdigit()]


def test_steps_are_ordered_as_numbers(tmp_path):
    checkpoints = Checkpoints(str(tmp_path))
    for step in (9, 10, 100):
        save(checkpoints, step)
    assert checkpoints.steps() == [9, 10, 100]
    assert restore_latest(checkpoints, *trees())[2]['step'] == 100


def test_tidying_removes_the_half_written_and_nothing_else(tmp_path):
    checkpoints = Checkpoints(str(tmp_path))
    checkpoints.tidy()
    save(checkpoints, 1)
    for name in ('.writing-2', '.doomed-0', '3.damaged'):
        os.makedirs(os.path.join(checkpoints.directory, name, 'model'))
    checkpoints.tidy()
    assert sorted(os.listdir(checkpoints.directory)) == ['1', '3.damaged']


def test_the_step_may_be_written_again(tmp_path):
    checkpoints = Checkpoints(str(tmp_path))
    save(checkpoints, 1, value=1.0)
    save(checkpoints, 1, value=2.0)
    assert_same(restore_latest(checkpoints, *trees())[0], trees(2.0)[0])


def test_every_flipped_bit_and_every_cut_is_found_and_the_checkpoint_before_it_used(tmp_path, capsys):
    checkpoints = Checkpoints(str(tmp_path))
    for step in (1, 2, 3):
        save(checkpoints, step, value=float(step))
    newest = os.path.join(checkpoints.directory, '3')
    kept = shutil.copytree(newest, tmp_path / 'kept')
    chance = random.Random(0)
    for number in range(200):
        shutil.rmtree(newest, ignore_errors=True)
        shutil.copytree(kept, newest)
        what = damage_file(newest, chance)
        if number % 20:
            assert checkpoints.newest() == 2, what
        else:
            with pytest.raises(UserError, match='checkpoint .*/3 '):
                checkpoints.restore_model(3, trees()[0])
            model, _, where = restore_latest(checkpoints, *trees())
            assert where['step'] == 2, what
            assert_same(model, trees(2.0)[0])
        assert sorted(os.listdir(checkpoints.directory)) == ['1', '2', '3.damaged'], what
        assert capsys.readouterr().err.count('\n') == 1
    os.remove(os.path.join(checkpoints.directory, '2', 'checksums.json'))
    assert restore_latest(checkpoints, *trees())[2]['step'] == 1


@pytest.mark.parametrize('damage', ['missing', 'added', 'cut'])
def test_other_damage_is_found_too(tmp_path, damage):
    checkpoints = Checkpoints(str(tmp_path))
    save(checkpoints, 1)
    path = os.path.join(checkpoints.directory, '1', 'position', 'metadata')
    if damage == 'missing':
        os.remove(path)
    elif damage == 'added':
        open(path + '.bak', 'w').close()
    else:
        os.truncate(path, 5)
    assert restore_latest(checkpoints, *trees()) is None
    assert os.listdir(checkpoints.directory) == ['1.damaged']


def test_a_damaged_position_does_not_stop_the_other_questions(tmp_path):
    """The loop asks for members and the best before anything is verified."""
    checkpoints = Checkpoints(str(tmp_path))
    save(checkpoints, 1, 0.5)
    save(checkpoints, 2, 0.7)
    os.truncate(os.path.join(checkpoints.directory, '2', 'position', 'metadata'), 5)
    assert restore_latest(checkpoints, *trees())[2]['step'] == 1
    assert checkpoints.best() == 1


def test_a_checkpoint_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match='5'):
        Checkpoints(str(tmp_path)).restore_model(5, trees()[0])


def test_a_full_disk_is_an_os_error_and_leaves_the_older_checkpoints_whole(tmp_path, monkeypatch):
    checkpoints = Checkpoints(str(tmp_path))
    save(checkpoints, 1, value=1.0)

    def full(*_):
        raise ValueError('RESOURCE_EXHAUSTED: write failed: No space left on device [28]')  # as tensorstore says it

    monkeypatch.setattr('orbax.checkpoint.Checkpointer.save', full)
    checkpoints.save(*trees(2.0), position(2))
    with pytest.raises(OSError) as caught:
        checkpoints.wait()
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(checkpoints.directory) == ['1']
    assert_same(restore_latest(checkpoints, *trees())[0], trees(1.0)[0])
    checkpoints.save(*trees(2.0), position(2))
    with pytest.raises(OSError, match='No space left'):  # the one before is raised when the next is saved
        checkpoints.save(*trees(3.0), position(3))


def test_a_really_full_disk(tmp_path):
    with small_disk(tmp_path / 'small', 400) as small:
        checkpoints = Checkpoints(str(small))
        save(checkpoints, 1, value=1.0)
        big = {'w': jnp.asarray(np.random.default_rng(0).normal(size=(500, 500)), jnp.float32)}
        checkpoints.save(big, big, position(2))
        with pytest.raises(OSError, match='No space left'):
            while True:
                checkpoints.check()
        assert os.listdir(checkpoints.directory) == ['1']
        assert_same(restore_latest(checkpoints, *trees())[0], trees(1.0)[0])


def test_a_run_on_eight_devices_is_read_by_one_and_the_other_way_round(tmp_path):
    checkpoints = Checkpoints(str(tmp_path))
    many, one = make_placement(8).replicated, make_placement(1, jax.devices()[:1]).replicated
    for source, target in ((many, one), (one, many)):
        checkpoints.save(*jax.device_put(trees(1.5), source), position(1))
        checkpoints.wait()
        model, rest, _ = restore_latest(checkpoints, *jax.device_put(trees(), target))
        assert_same((model, rest), trees(1.5))
        assert {leaf.sharding for leaf in jax.tree.leaves(model)} == {target}
