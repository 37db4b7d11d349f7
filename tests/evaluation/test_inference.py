import re
import threading
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.data.preprocess import Preprocessing, views
from fer_jax.errors import UserError
from fer_jax.evaluation.inference import make_predict, predict_split, stack_members
from fer_jax.training.mesh import make_placement

HOW = Preprocessing(8, 1, crop=6, mean=100.0, deviation=50.0)


class Linear(nn.Module):
    """Sees places, so that a mirror image has other logits."""

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(3)(images.reshape(len(images), -1)), {}


@pytest.fixture(scope='module')
def members():
    return [Linear().init(jax.random.key(seed), jnp.zeros((1, 6, 6, 1))) for seed in range(3)]


@pytest.fixture(scope='module')
def images():
    return np.random.default_rng(0).integers(0, 256, (11, 8, 8, 1)).astype(np.uint8)


def by_hand(variables, inputs):
    dense = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables['params']['Dense_0'])
    return np.asarray(inputs, np.float64).reshape(len(inputs), -1) @ dense['kernel'] + dense['bias']


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize('one_by_one', [True, False])
def test_stacked_members_say_what_each_says_alone(members, images, one_by_one):
    predict = make_predict(Linear(), HOW, map_members=one_by_one)
    together = predict_split(predict, stack_members(members), images, 11)
    assert together.shape == (3, 11, 3)
    assert together.dtype == np.float32
    window = (images[:, 1:7, 1:7].astype(float) - 100) / 50
    for variables, logits in zip(members, together, strict=True):
        np.testing.assert_allclose(logits, by_hand(variables, window), atol=1e-4)


@pytest.mark.parametrize(
    ('platform', 'count', 'inputs', 'batched'),
    [('gpu', 3, 8, True), ('gpu', 3, 64, False), ('gpu', 1, 8, False), ('cpu', 3, 8, False)],
)
def test_few_inputs_of_several_members_are_one_batch_on_an_accelerator(
    members, monkeypatch, platform, count, inputs, batched
):
    monkeypatch.setattr(jax, 'default_backend', lambda: platform)
    stacked = stack_members(members[:count])
    images = jnp.zeros((inputs // 2, 8, 8, 1), jnp.uint8)
    program = str(jax.make_jaxpr(make_predict(Linear(), HOW, 'flip'))(stacked, images))
    assert ('scan' not in program) == batched


@pytest.mark.parametrize('batch_size', [1, 4, 10, 11, 64])
def test_the_padding_of_the_last_batch_changes_nothing(members, images, batch_size):
    predict = make_predict(Linear(), HOW, 'flip')
    stacked = stack_members(members)
    whole = np.asarray(predict(stacked, images))
    np.testing.assert_allclose(predict_split(predict, stacked, images, batch_size), whole, atol=1e-5)


def test_all_batches_have_one_size_so_that_one_program_serves(members, images):
    sizes = []

    def predict(variables, batch):
        sizes.append(len(batch))
        return np.zeros((1, len(batch), 3))

    predict_split(predict, None, images, 4)
    predict_split(predict, None, images, 64)
    assert sizes == [4, 4, 4, 11]


@pytest.mark.parametrize('tta', ['none', 'ten_crop'])
@pytest.mark.parametrize('batch_size', [1, 8, 9, 64])
def test_eight_devices_say_what_one_says_of_every_image(members, images, tta, batch_size):
    placement = make_placement()
    alone = predict_split(make_predict(Linear(), HOW, tta), stack_members(members), images, batch_size)
    sizes = []

    def noted(variables, batch):
        sizes.append({shard.data.shape for shard in batch.addressable_shards})
        return predict(variables, batch)

    predict = make_predict(Linear(), HOW, tta, placement=placement)
    stacked = placement.everywhere(stack_members(members))
    together = predict_split(noted, stacked, images, batch_size, placement=placement)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert together.shape == (3, 11, 3)
    on_each = 1 if batch_size <= 8 else 2
    assert sizes == [{(on_each, 8, 8, 1)}] * (2 if batch_size <= 8 else 1)


def test_nothing_but_the_logits_goes_between_devices(members, images):
    placement = make_placement()
    predict = make_predict(Linear(), HOW, 'ten_crop', placement=placement)
    batch = jax.device_put(np.resize(images, (16, 8, 8, 1)), placement.split(0))
    text = predict.lower(placement.everywhere(stack_members(members)), batch).compile().as_text()
    gathered = re.findall(r'= (\S+?)(?:\{.*?\})? all-gather\(', text)
    assert not [word for word in ('all-reduce', 'all-to-all', 'collective-permute') if f'{word}(' in text]
    assert len(gathered) == 1
    assert np.prod([int(size) for size in re.search(r'\[(.*)\]', gathered[0])[1].split(',')]) == 3 * 16 * 3


@pytest.mark.parametrize(('tta', 'count'), [('flip', 2), ('five_crop', 5), ('ten_crop', 10)])
@pytest.mark.parametrize('one_by_one', [True, False])
def test_the_softmax_of_several_views_is_their_mean_probability(members, images, tta, count, one_by_one):
    predict = make_predict(Linear(), HOW, tta, map_members=one_by_one)
    found = predict_split(predict, stack_members(members), images, 4)
    inputs = np.asarray(views(images, tta, HOW))
    assert len(inputs) == count
    for variables, logits in zip(members, found, strict=True):
        expected = np.mean([softmax(by_hand(variables, view)) for view in inputs], 0)
        np.testing.assert_allclose(np.exp(logits), expected, atol=1e-5)
        np.testing.assert_allclose(softmax(logits), expected, atol=1e-5)


def test_flip_does_not_see_which_way_an_image_faces(members, images):
    predict = make_predict(Linear(), HOW, 'flip')
    stacked = stack_members(members)
    np.testing.assert_allclose(predict(stacked, images), predict(stacked, images[:, :, ::-1]), atol=1e-5)
    once = make_predict(Linear(), HOW)
    assert np.abs(once(stacked, images) - once(stacked, images[:, :, ::-1])).max() > 0.1


def test_views_that_are_sure_of_different_classes_stay_finite():
    sure = {'params': {'Dense_0': {'kernel': jnp.zeros((36, 3)).at[0, 0].set(500.0), 'bias': jnp.zeros(3)}}}
    image = np.zeros((1, 8, 8, 1), np.uint8)
    image[0, 1, 1] = 255
    logits = make_predict(Linear(), HOW, 'flip')(stack_members([sure]), image)
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(softmax(np.asarray(logits))[0, 0], [0.5, 0.25, 0.25], atol=1e-6)


class Lazy:
    """Images that are read in a thread when they are indexed; what was read, and what was done before, is noted."""

    def __init__(self, images, events):
        self.images, self.shape, self.events = images, images.shape, events

    def __len__(self):
        return len(self.images)

    def __getitem__(self, key):
        self.events.append(('read', key.start, threading.current_thread() is threading.main_thread()))
        return self.images[key]


def test_images_that_are_read_when_indexed_are_read_ahead_of_the_device(members, images):
    predict, stacked, events = make_predict(Linear(), HOW), stack_members(members), []
    expected = predict_split(predict, stacked, images, 4)

    def slow(variables, batch):
        time.sleep(0.1)
        events.append(('predict', len([event for event in events if event[0] == 'predict'])))
        return predict(variables, batch)

    np.testing.assert_array_equal(predict_split(slow, stacked, Lazy(images, events), 4), expected)
    reads = [event for event in events if event[0] == 'read']
    assert reads == [('read', 0, False), ('read', 4, False), ('read', 8, False)]
    assert [event[0] for event in events] == ['read', 'read', 'predict', 'read', 'predict', 'predict']


def test_what_goes_wrong_in_reading_is_raised(members, images):
    class Broken(Lazy):
        def __getitem__(self, key):
            raise UserError('data/x is damaged')

    with pytest.raises(UserError, match='data/x is damaged'):
        predict_split(make_predict(Linear(), HOW), stack_members(members), Broken(images, []), 4)
