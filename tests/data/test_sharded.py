"""The sharded feed gives the others' batches, and no device ever holds the whole set."""

import contextlib
import dataclasses

import jax
import numpy as np
import pytest

from fer_jax.data.feed import ResidentFeed
from fer_jax.data.prepared import describe, store_prepared
from fer_jax.data.sharded import ShardedFeed
from fer_jax.data.stored import load_prepared
from fer_jax.data.streaming import StreamingFeed
from fer_jax.errors import UserError
from fer_jax.training.mesh import make_placement


class Noted:
    """Images that are read in slices, of which the bounds are noted."""

    def __init__(self, images):
        self.images, self.shape, self.read = images, images.shape, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, key):
        self.read.append((key.start, key.stop))
        return self.images[key]


@pytest.fixture(scope='module')
def split(make_dataset):
    """403 images, which divide over none of the numbers of devices, with targets."""
    train = make_dataset((403, 5, 5)).splits['train']
    targets = np.random.default_rng(0).random((len(train), 3)).astype(np.float32)
    return dataclasses.replace(train, extra={'targets': targets})


@pytest.mark.parametrize('devices', [1, 2, 8])
def test_batches_are_those_of_the_other_feeds_to_the_bit_and_lie_alike(split, devices):
    placement = make_placement(16, jax.devices()[:devices])
    order, cut = (split, 3, 16, 3), placement.split(1)
    sharded = ShardedFeed(*order, cut=cut)
    resident = ResidentFeed(*order, everywhere=placement.replicated, cut=cut)
    with contextlib.closing(StreamingFeed(*order, cut=cut)) as streaming:
        for step, count in ((0, 3), (3, 1), (24, 3), (1000, 2)):  # 24: from the first epoch into the second
            found, others = sharded.batches(step, count), [feed.batches(step, count) for feed in (resident, streaming)]
            for expected in others:
                assert found.keys() == expected.keys() == {'images', 'labels', 'targets'}
                for name in expected:
                    assert found[name].dtype == expected[name].dtype
                    assert found[name].sharding.is_equivalent_to(expected[name].sharding, found[name].ndim)
                    np.testing.assert_array_equal(found[name][:count], expected[name][:count])


def test_each_device_reads_and_holds_its_rows_and_no_others(split):
    images = Noted(split.images)
    feed = ShardedFeed(dataclasses.replace(split, images=images), 0, 16, cut=make_placement(16).split(1))
    assert sorted(images.read) == [(start, min(start + 51, 403)) for start in range(0, 403, 51)]
    shards = feed._rows['images'].addressable_shards
    assert {shard.device for shard in shards} == set(jax.devices())
    assert {shard.data.shape for shard in shards} == {(51, 12, 12, 1)}


def test_the_whole_set_is_on_no_device_while_a_batch_is_made(split):
    feed = ShardedFeed(split, 0, 16, 3, cut=make_placement(16).split(1))
    program = feed._gather.lower(feed._rows, np.zeros((3, 16), np.int32)).compile()
    text = program.as_text()
    assert 'reduce-scatter(' in text
    assert not [word for word in ('all-gather', 'all-reduce', 'all-to-all') if f'{word}(' in text]
    memory = program.memory_analysis()
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    assert 51 * 12 * 12 < held < split.images.nbytes / 3


def test_stored_pictures_are_read_row_by_row_and_checked(tmp_path, make_dataset):
    data = make_dataset((41, 5, 5))
    manifest = describe('rows', data.class_names, data.splits, (12, 12, 1)) | {'source': 'a test'}
    store_prepared(dataclasses.replace(data, manifest=manifest), tmp_path)
    split, cut = load_prepared(tmp_path, lazy=True).splits['train'], make_placement(16).split(1)
    found = ShardedFeed(split, 0, 16, cut=cut).batches(0, 1)['images']
    np.testing.assert_array_equal(found, ResidentFeed(data.splits['train'], 0, 16, cut=cut).batches(0, 1)['images'])
    hashes = split.images.pixel_hashes.copy()
    hashes[17] = hashes[0]
    other = dataclasses.replace(split, images=dataclasses.replace(split.images, pixel_hashes=hashes))
    with pytest.raises(UserError, match='is damaged'):
        ShardedFeed(other, 0, 16, cut=cut)
