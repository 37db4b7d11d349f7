"""The streaming feed gives the resident one's batches, whenever it is asked and however many processes share it."""

import dataclasses
import threading
import time

import jax
import numpy as np
import pytest

from fer_jax.data.feed import ResidentFeed, batch_indices
from fer_jax.data.streaming import StreamingFeed, read_batch
from fer_jax.errors import UserError
from fer_jax.training.mesh import make_placement


class Slow:
    """Images that note which of them are read, when, and take their time or fail."""

    def __init__(self, images, seconds=0.0, failing=()):
        self.images, self.seconds, self.failing = images, seconds, set(failing)
        self.shape, self.read = images.shape, []

    def __getitem__(self, key):
        self.read.append(list(key))
        time.sleep(self.seconds)
        if self.failing & set(key):
            raise UserError('data/x is damaged')
        return self.images[key]


@pytest.fixture
def split(dataset):
    train = dataset.splits['train']
    targets = np.random.default_rng(0).random((len(train), 3)).astype(np.float32)
    return dataclasses.replace(train, images=Slow(train.images), extra={'targets': targets})


@pytest.fixture
def make_feed(split):
    feeds = []

    def make(*arguments, **options):
        feeds.append(StreamingFeed(split, *arguments, **options))
        return feeds[-1]

    yield make
    for feed in feeds:
        feed.close()


def whole(split):
    return dataclasses.replace(split, images=split.images.images)


@pytest.mark.parametrize('dispatch', [1, 3])
def test_both_feeds_give_the_same_batches_in_any_order_of_asking(split, make_feed, dispatch):
    cut = make_placement(8, jax.devices()[:2]).split(1)
    streaming, resident = make_feed(5, 8, dispatch, cut=cut), ResidentFeed(whole(split), 5, 8, dispatch, cut=cut)
    step = 0
    for jump, count in ((0, 1), (0, dispatch), (0, 1), (14, dispatch), (0, 1), (-17, 1), (0, dispatch)):
        step += jump
        expected, found = resident.batches(step, count), streaming.batches(step, count)
        assert found.keys() == expected.keys()
        for name in expected:
            assert found[name].shape == expected[name].shape
            assert found[name].dtype == expected[name].dtype
            assert found[name].sharding.is_equivalent_to(expected[name].sharding, found[name].ndim)
            np.testing.assert_array_equal(found[name][:count], expected[name][:count])
        step += count


def test_batches_are_read_ahead_and_no_further_than_they_can_be_held(split, make_feed):
    feed = make_feed(0, 8)
    feed.batches(0, 1)
    for _ in range(200):
        time.sleep(0.01)
        if len(split.images.read) >= 4:
            break
    time.sleep(0.2)
    assert 4 <= len(split.images.read) <= 8
    order = [list(indices) for indices in batch_indices(0, 0, 8, len(split), 8)]
    assert all(rows in order for rows in split.images.read)


def test_what_is_waited_for_counts_only_while_the_device_has_nothing_to_do(split, make_feed):
    split.images.seconds = 0.1
    feed = make_feed(0, 8)
    feed.batches(0, 1, lambda: False)
    assert feed.waited == 0.0
    feed.batches(30, 1, lambda: True)
    assert 0.1 <= feed.waited < 1.0
    time.sleep(0.5)
    before = feed.waited
    feed.batches(31, 1, lambda: True)
    assert feed.waited - before < 0.05


def test_an_error_in_a_reading_thread_arrives_as_it_is(split, make_feed):
    order = batch_indices(0, 0, 5, len(split), 8)
    split.images.failing = {int(order[3][2])} - set(order[:3].ravel().tolist())
    feed = make_feed(0, 8)
    for step in range(3):
        feed.batches(step, 1)
    with pytest.raises(UserError) as raised:
        feed.batches(3, 1)
    assert str(raised.value) == 'data/x is damaged'


def test_closing_ends_the_threads(split, make_feed):
    before = set(threading.enumerate())
    feed = make_feed(0, 8)
    feed.batches(0, 1)
    assert set(threading.enumerate()) - before
    feed.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()
    feed.close()


@pytest.mark.parametrize('count', [2, 4])
def test_each_of_several_processes_reads_its_own_rows_and_together_they_have_the_batch(split, count):
    alone = read_batch(whole(split), 3, 8, 6)
    assert alone['images'].shape == (1, 8, 12, 12, 1)
    split.images.read.clear()
    parts = [read_batch(split, 3, 8, 6, index, count) for index in range(count)]
    assert [len(rows) for rows in split.images.read] == [8 // count] * count
    for name in ('images', 'labels', 'targets'):
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts], 1), alone[name])
    np.testing.assert_array_equal(alone['labels'][0], split.labels[batch_indices(3, 6, 1, len(split), 8)[0]])
