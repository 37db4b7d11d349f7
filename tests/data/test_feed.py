import dataclasses
import os

import jax
import numpy as np
import pytest

from fer_jax.data import feed
from fer_jax.data.feed import ResidentFeed, batch_indices, choose_feed, free_memory
from fer_jax.errors import UserError
from fer_jax.training.mesh import make_placement


@pytest.mark.parametrize(('num_examples', 'batch_size'), [(12, 4), (13, 5), (7, 7), (5, 12), (1, 3)])
def test_every_epoch_is_a_permutation_and_batches_run_across_the_border(num_examples, batch_size):
    epochs = 4 * batch_size  # a whole number of batches and of epochs
    steps = epochs * num_examples // batch_size
    flat = batch_indices(0, 0, steps, num_examples, batch_size).reshape(epochs, num_examples)
    np.testing.assert_array_equal(np.sort(flat, 1), np.tile(np.arange(num_examples), (epochs, 1)))


def test_epochs_and_seeds_differ():
    order = lambda seed, step: tuple(batch_indices(seed, step, 1, 50, 50)[0])
    assert len({order(seed, step) for seed in range(3) for step in range(3)}) == 9


@pytest.mark.parametrize('cuts', [[0, 30], [0, 1, 2, 3, 30], [0, 7, 11, 29, 30], list(range(31))])
def test_any_split_into_calls_gives_the_same_batches(cuts):
    whole = batch_indices(5, 0, 30, 37, 8)
    parts = [batch_indices(5, start, end - start, 37, 8) for start, end in zip(cuts, cuts[1:], strict=False)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert whole.shape == (30, 8)


def test_the_order_is_the_published_one():
    """Golden: numpy's Philox stream is stable across versions, so a run can be repeated years later."""
    expected = np.random.Generator(np.random.Philox(key=[3, 1])).permutation(6)
    np.testing.assert_array_equal(batch_indices(3, 2, 2, 6, 3).ravel(), expected)


def test_a_resident_split_gathers_images_with_their_labels_and_targets(dataset):
    split = dataset.splits['train']
    targets = np.random.default_rng(0).random((len(split), 3)).astype(np.float32)
    split = dataclasses.replace(split, extra={'targets': targets, 'subject': np.full(len(split), 'S')})
    placement = make_placement(8, jax.devices()[:2])
    resident = ResidentFeed(split, 7, 8, 3, everywhere=placement.replicated, cut=placement.split(1))
    batches = resident.batches(4, 2)
    assert batches.keys() == {'images', 'labels', 'targets'}
    assert {shard.data.shape for shard in batches['images'].addressable_shards} == {(3, 4, 12, 12, 1)}
    assert {shard.device for shard in batches['labels'].addressable_shards} == set(jax.devices()[:2])
    for place, indices in enumerate(batch_indices(7, 4, 2, len(split), 8)):
        np.testing.assert_array_equal(batches['images'][place], split.images[indices])
        np.testing.assert_array_equal(batches['labels'][place], split.labels[indices])
        np.testing.assert_array_equal(batches['targets'][place], targets[indices])
    assert resident.waited is None


def test_without_targets_a_batch_has_none(dataset):
    batches = ResidentFeed(dataset.splits['train'], 0, 4).batches(0, 1)
    assert batches.keys() == {'images', 'labels'}
    assert batches['images'].shape == (1, 4, 12, 12, 1)


class Device:
    platform = 'gpu'

    def __init__(self, limit):
        self.limit = limit

    def memory_stats(self):
        return self.limit and {'bytes_limit': self.limit, 'bytes_in_use': 5}


@pytest.mark.parametrize(
    ('num_bytes', 'limit', 'free', 'expected'),
    [
        (1000, 3000, 3000, 'resident'),
        (1001, 3000, 9000, 'streaming'),
        (1001, 9000, 3000, 'streaming'),
        (1000, None, 3000, 'resident'),
        (1001, None, 3000, 'streaming'),
    ],
)
def test_auto_is_resident_up_to_a_third_of_either_memory(monkeypatch, num_bytes, limit, free, expected):
    monkeypatch.setattr(feed, 'free_memory', lambda: free)
    assert choose_feed('auto', num_bytes, Device(limit))[0] == expected
    for wanted in ('resident', 'sharded', 'streaming'):
        assert choose_feed(wanted, num_bytes, Device(limit))[0] == wanted
    with pytest.raises(UserError, match="feed is 'lazy'; it can be auto, resident, sharded, streaming"):
        choose_feed('lazy', num_bytes, Device(limit))


@pytest.mark.parametrize(
    ('num_bytes', 'limit', 'free', 'expected'),
    [
        (1000, 3000, 3000, 'resident'),  # a GPU has a memory of its own, the host decodes the whole once
        (1001, 3000, 9000, 'sharded'),
        (1001, 9000, 3000, 'sharded'),  # a process decodes the rows of its devices only
        (8000, 3000, 12000, 'sharded'),
        (8001, 3000, 90000, 'streaming'),
        (8000, 3000, 11999, 'streaming'),  # half of the devices are here, and so half of the rows
        (1000, None, 12000, 'resident'),  # without one all four copies are in the host's
        (1001, None, 12000, 'sharded'),
        (8000, None, 12000, 'sharded'),
        (8001, None, 12000, 'streaming'),
    ],
)
def test_what_no_device_holds_whole_is_cut_over_all_of_them(monkeypatch, num_bytes, limit, free, expected):
    monkeypatch.setattr(feed, 'free_memory', lambda: free)
    assert choose_feed('auto', num_bytes, Device(limit), num_devices=8, on_host=4)[0] == expected


def test_every_process_of_a_host_decodes_the_whole_for_its_devices(monkeypatch):
    monkeypatch.setattr(feed, 'free_memory', lambda: 6000)
    choose = lambda num_bytes: choose_feed('auto', num_bytes, Device(9000), 8, on_host=2, processes=2)[0]
    assert [choose(size) for size in (1000, 1001)] == ['resident', 'sharded']


@pytest.mark.parametrize(
    ('hosts', 'cores', 'expected'),
    [(1, 256, 'sharded'), (4, 128, 'sharded'), (8, 128, 'streaming'), (64, 16, 'streaming')],
)
def test_rows_are_not_exchanged_by_hosts_whose_cores_decode_them_sooner(monkeypatch, hosts, cores, expected):
    monkeypatch.setattr(feed, 'free_memory', lambda: 90000)
    devices = {'num_devices': 8 * hosts, 'on_host': 8, 'hosts': hosts, 'cores': cores}
    assert choose_feed('auto', 1001, Device(3000), **devices)[0] == expected
    assert choose_feed('auto', 1000, Device(3000), **devices)[0] == 'resident'


def test_the_choice_names_the_sizes(monkeypatch):
    monkeypatch.setattr(feed, 'free_memory', lambda: 3 * 1024**3)
    words = choose_feed('auto', 66_145_536, Device(1.5 * 1024**4))[1]
    assert words == '63.1 MiB of images, 3 GiB of host and 1.54e+03 GiB of gpu memory'


def test_free_memory_is_some_of_the_machines():
    whole = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    assert whole / 1000 < free_memory() <= whole
