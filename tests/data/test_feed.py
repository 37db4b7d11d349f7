import jax
import numpy as np
import pytest

from fer_jax.data.feed import batch_indices, put_resident


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


def test_a_resident_split_gathers_images_with_their_labels(dataset):
    split = dataset.splits['train']
    resident = put_resident(split, jax.sharding.SingleDeviceSharding(jax.devices()[2]))
    batch = resident.batch(np.array([3, 0, 3]))
    assert batch['images'].devices() == {jax.devices()[2]}
    np.testing.assert_array_equal(batch['images'], split.images[[3, 0, 3]])
    np.testing.assert_array_equal(batch['labels'], split.labels[[3, 0, 3]])
