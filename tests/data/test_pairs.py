import contextlib
import dataclasses
import functools

import jax
import numpy as np
import pytest

from fer_jax.data.feed import ResidentFeed, batch_indices
from fer_jax.data.pairs import PairFeed, domain_seed, select_pair
from fer_jax.data.streaming import StreamingFeed
from fer_jax.errors import UserError
from fer_jax.training.mesh import make_placement


def rows(images, split):
    """Which images of a split these are; all are different."""
    places = {image.tobytes(): index for index, image in enumerate(split.images)}
    return [places[np.asarray(image).tobytes()] for image in images]


def test_a_pair_is_two_classes_in_the_order_asked_for(dataset):
    first, second = select_pair(dataset, ('happiness', 'anger'))
    train = dataset.splits['train']
    assert set(first.labels) == {2}
    assert set(second.labels) == {0}
    assert list(first.ids) == [name for name, label in zip(train.ids, train.labels, strict=True) if label == 2]
    np.testing.assert_array_equal(second.images, train.images[train.labels == 0])
    held_out, _ = select_pair(dataset, ('anger', 'fear'), 'validation')
    assert all(name.startswith('validation_') for name in held_out.ids)


@pytest.mark.parametrize(
    ('pair', 'message'),
    [
        (('anger',), 'config.pair is anger; two different classes are wanted, out of anger, fear, happiness'),
        ((), 'config.pair is empty; two'),
        (('fear', 'fear'), 'config.pair is fear, fear; two different'),
        (('fear', 'joy'), "names 'joy', which rows does not have; its classes: anger, fear, happiness"),
    ],
)
def test_what_is_no_pair_is_refused(dataset, pair, message):
    with pytest.raises(UserError, match=message):
        select_pair(dataset, pair)


def test_a_class_without_images_is_refused(dataset):
    train = dataset.splits['train']
    splits = {**dataset.splits, 'train': train.select(train.labels != 1)}
    left = dataclasses.replace(dataset, splits=splits)
    with pytest.raises(UserError, match='rows has no train images of fear; it has anger 14, happiness 13'):
        select_pair(left, ('anger', 'fear'))
    with pytest.raises(UserError, match='rows has no extra split; it has train, validation, test'):
        select_pair(dataset, ('anger', 'fear'), 'extra')


def test_both_domains_are_dealt_whole_and_apart(dataset):
    # Of one size, where one order would show.
    pair = tuple(split.select(np.arange(12)) for split in select_pair(dataset, ('fear', 'happiness')))
    feed = PairFeed(pair, 5, functools.partial(ResidentFeed, batch_size=4))
    met = {name: [] for name in ('images_a', 'images_b')}
    for step in range(6):  # two epochs
        batch = feed.batches(step, 1)
        assert batch.keys() == met.keys()
        for name, split in zip(met, pair, strict=True):
            met[name] += rows(batch[name][0], split)
    for indices in met.values():
        assert sorted(indices[:12]) == sorted(indices[12:]) == list(range(12))
    assert met['images_a'] != met['images_b']
    partners = [
        set(zip(met['images_a'][part], met['images_b'][part], strict=True)) for part in (slice(12), slice(12, 24))
    ]
    assert len(partners[0] & partners[1]) < 6
    assert feed.waited is None
    expected = batch_indices(domain_seed(5, 1), 0, 6, 12, 4).ravel().tolist()
    assert met['images_b'] == expected


def test_a_later_step_needs_no_earlier_one(dataset):
    """So a resumed run meets the batches that it would have met."""
    pair = select_pair(dataset, ('anger', 'happiness'))
    make = functools.partial(ResidentFeed, batch_size=4, dispatch=3)
    whole, later = PairFeed(pair, 1, make), PairFeed(pair, 1, make)
    whole.batches(0, 3)
    expected, found = whole.batches(3, 2), later.batches(3, 2)
    for name in expected:
        assert found[name].shape == (3, 4, 12, 12, 1)
        np.testing.assert_array_equal(found[name][:2], expected[name][:2])
    other = PairFeed(pair, 2, make).batches(3, 2)
    assert not (other['images_a'] == expected['images_a']).all()


def test_streamed_pairs_are_the_resident_ones_cut_over_devices(dataset):
    pair = select_pair(dataset, ('anger', 'fear'))
    placement = make_placement(4, jax.devices()[:2])
    make = lambda split, seed: StreamingFeed(split, seed, 4, 2, cut=placement.split(1))
    resident = PairFeed(pair, 3, lambda split, seed: ResidentFeed(split, seed, 4, 2))
    with contextlib.closing(PairFeed(pair, 3, make)) as feed:
        for step, count in ((2, 2), (4, 1)):
            found, expected = feed.batches(step, count), resident.batches(step, count)
            for name in ('images_a', 'images_b'):
                np.testing.assert_array_equal(found[name][:count], expected[name][:count])
                assert {shard.data.shape for shard in found[name].addressable_shards} == {(2, 2, 12, 12, 1)}
        assert feed.waited > 0


def test_a_feed_that_cannot_be_made_closes_the_other(dataset):
    closed = []

    class Feed:
        waited = None

        def __init__(self, split, seed):
            if made:
                raise MemoryError
            made.append(self)

        def close(self):
            closed.append(self)

    made = []
    with pytest.raises(MemoryError):
        PairFeed(select_pair(dataset, ('anger', 'fear')), 0, Feed)
    assert closed == made
    assert len(made) == 1
