"""Whatever feeds the step, and wherever a run is taken up again, it is the same run to the bit."""

import contextlib
import dataclasses
import functools
import json
import os
import socket
import subprocess
import sys

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from fer_jax.data.augment import Augmentation
from fer_jax.data.feed import ResidentFeed
from fer_jax.data.preprocess import Preprocessing
from fer_jax.data.sharded import ShardedFeed
from fer_jax.data.streaming import StreamingFeed
from fer_jax.evaluation import inference
from fer_jax.training import classify
from fer_jax.training.dispatch import make_advance, steps_per_dispatch
from fer_jax.training.mesh import make_placement
from tests.launches import QUICKLY


class Net(nn.Module):
    """A convolution and a dense layer: quick to compile."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), (2, 2))(images))
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1)), {}


TASK = classify.Task(
    model=Net(),
    optimizer=optax.sgd(0.05, 0.9),
    preprocessing=Preprocessing(12, 1, crop=10),
    augmentation=Augmentation(flip=True, brightness=0.1),
)
STEP = functools.partial(classify.train_step, TASK)


def make_feed(name, split, placement, dispatch):
    if name == 'resident':
        return ResidentFeed(split, 3, 16, dispatch, everywhere=placement.replicated, cut=placement.split(1))
    if name == 'sharded':
        return ShardedFeed(split, 3, 16, dispatch, cut=placement.split(1))
    process = {'process_index': jax.process_index(), 'process_count': jax.process_count()}
    return StreamingFeed(split, 3, 16, dispatch, cut=placement.split(1), **process)


def run(dataset, name, pieces, devices=1):
    """Losses and last state after runs of these numbers of dispatched steps, each begun with a new feed."""
    placement = make_placement(16, jax.devices()[:devices])
    dispatch = max(count for counts in pieces for count in counts)
    state = jax.device_put(jax.device_get(classify.init_state(TASK, jax.random.key(0))), placement.replicated)
    losses, step = [], 0
    for counts in pieces:
        with contextlib.closing(make_feed(name, dataset.splits['train'], placement, dispatch)) as feed:
            advance = make_advance(STEP, feed, placement, 3, dispatch)
            for count in counts:
                state, sums = advance(state, step, count)
                step += count
                losses.append(float(sums['loss']))
    return losses, jax.device_get(state)


@pytest.mark.parametrize(('counts', 'devices'), [([1] * 7, 1), ([3, 1, 3], 2)])
def test_all_feeds_train_to_the_same_bits(dataset, counts, devices):
    resident = run(dataset, 'resident', [counts], devices)
    for name in ('sharded', 'streaming'):
        other = run(dataset, name, [counts], devices)
        assert other[0] == resident[0]
        jax.tree.map(np.testing.assert_array_equal, other[1], resident[1])


def run_as_one_of_two(index, port):
    """In a process of its own with one device of two; prints what the last state holds and which rows were read."""
    from tests import conftest

    jax.distributed.initialize(f'127.0.0.1:{port}', 2, index)
    dataset, read = conftest.make_dataset(), []

    class Noted(np.ndarray):
        def __getitem__(self, key):
            read.append(len(key))
            return np.asarray(self)[key]

    train = dataclasses.replace(dataset.splits['train'], images=dataset.splits['train'].images.view(Noted))
    dataset = dataclasses.replace(dataset, splits={'train': train})
    losses, state = run(dataset, 'streaming', [[3, 1, 3]], 2)
    kernel = np.asarray(state.variables['params']['Dense_0']['kernel'])
    print(json.dumps({'losses': losses, 'kernel': kernel.tolist(), 'rows': sorted(set(read))}))


def test_two_processes_that_read_half_of_each_batch_train_as_one_with_two_devices(dataset):
    said = two_processes('run_as_one_of_two', 1)
    losses, state = run(dataset, 'streaming', [[3, 1, 3]], 2)
    for found in said:
        assert found['rows'] == [8]
        assert found['losses'] == losses
        np.testing.assert_array_equal(
            np.array(found['kernel'], np.float32), state.variables['params']['Dense_0']['kernel']
        )


def two_processes(function, devices):
    """What two processes with so many devices each print last when they call a function of this module."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    flags = f'{QUICKLY} --xla_force_host_platform_device_count={devices}'
    environment = os.environ | {'PYTHONPATH': root}
    lines = [
        f'import os; from tests import conftest; os.environ["XLA_FLAGS"] = "{flags}"',
        'from tests.training import test_dispatch',
        f'test_dispatch.{function}({{}}, {port})',
    ]
    started = [
        subprocess.Popen(
            [sys.executable, '-c', '\n'.join(lines).format(index)],
            env=environment,
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    said = [process.communicate(timeout=600) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    return [json.loads(out.splitlines()[-1]) for out, _ in said]


def run_with_four_of_eight(index, port):
    """In a process of its own with four devices of eight: all feeds, then evaluation; prints what came of it."""
    from tests import conftest

    jax.distributed.initialize(f'127.0.0.1:{port}', 2, index)
    print(json.dumps(train_and_predict(conftest.make_dataset())))


def train_and_predict(dataset):
    """Ten steps on eight devices by each feed, and what the last network says of the validation images."""
    losses, found = {}, {}
    for name in ('resident', 'sharded', 'streaming'):
        losses[name], state = run(dataset, name, [[1] * 10], 8)
        found[name] = np.asarray(state.variables['params']['Dense_0']['kernel']).tolist()
    placement, read = make_placement(), []

    class Noted(np.ndarray):
        def __getitem__(self, key):
            read.append([key.start, key.stop])
            return np.asarray(self)[key]

    members = inference.stack_members([placement.everywhere(state.variables)])
    predict = inference.make_predict(Net(), TASK.preprocessing, 'flip', placement=placement)
    images = dataset.splits['validation'].images.view(Noted)
    logits = inference.predict_split(predict, members, images, 16, placement=placement)
    return {'losses': losses, 'kernels': found, 'logits': logits.tolist(), 'read': read}


def test_two_processes_of_four_devices_train_and_predict_as_one_with_eight(dataset):
    alone = train_and_predict(dataset)
    first, second = two_processes('run_with_four_of_eight', 4)
    assert first.pop('read') == [[0, 8], [16, 24]]
    assert second.pop('read') == [[8, 16]]  # of 23 images, the last eight of 32 are padding
    assert first == second
    for name in ('losses', 'kernels'):
        assert first[name]['resident'] == first[name]['sharded'] == first[name]['streaming']
        np.testing.assert_allclose(first[name]['resident'], alone[name]['resident'], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(first['logits'], alone['logits'], atol=1e-5)


@pytest.mark.parametrize('name', ['resident', 'streaming'])
def test_a_run_taken_up_in_the_middle_of_an_epoch_is_the_unbroken_one(dataset, name):
    whole = run(dataset, name, [[1] * 7])
    broken = run(dataset, name, [[1] * 3, [1] * 4])
    assert broken[0] == whole[0]
    jax.tree.map(np.testing.assert_array_equal, broken[1], whole[1])


def test_both_feeds_give_the_program_one_shape_so_that_it_is_the_same_program(dataset):
    traced = []

    def step(state, batch, key):
        traced.append(jax.tree.map(lambda array: (array.shape, array.dtype), batch))
        return state.replace(step=state.step + 1), {'loss': batch['labels'].sum()}

    placement = make_placement(16, jax.devices()[:1])
    for name in ('resident', 'streaming'):
        state = jax.device_put(classify.init_state(TASK, jax.random.key(0)), placement.replicated)
        with contextlib.closing(make_feed(name, dataset.splits['train'], placement, 3)) as feed:
            advance = make_advance(step, feed, placement, 3, 3)
            now = 0
            for count in (1, 3, 2, 3):
                state, _ = advance(state, now, count)
                now += count
    assert traced == traced[:1] * 4  # for each feed the shapes of the sums, and the loop's body
    assert traced[0] == {'images': ((16, 12, 12, 1), np.uint8), 'labels': ((16,), np.int32)}


def test_few_large_batches_are_dispatched_together():
    assert [steps_per_dispatch(0, 'gpu', size) for size in (2**18, 2**24, 2**26, 2**30)] == [32, 16, 4, 1]
    assert [steps_per_dispatch(5, 'gpu', 2**30), steps_per_dispatch(0, 'cpu', 2**10)] == [5, 1]
