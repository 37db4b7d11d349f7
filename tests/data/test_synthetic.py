"""Facts about the drawn faces: what depends on what, what the units do to pixels, how hard they are to tell apart."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

from fer_jax.data.dataset import EMOTIONS
from fer_jax.data.synthetic import (
    ACTION_UNITS,
    PROTOTYPES,
    draw,
    load_synthetic,
    render,
    sample_parameters,
    with_emotion,
)
from fer_jax.errors import UserError


def assert_trees_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def rows(tree, index):
    return jax.tree.map(lambda values: values[index], tree)


def facing(parameters):
    """The same people, straight ahead, in even light, sharp, without noise, beards and glasses."""
    zero = np.zeros_like(parameters.blur)
    pose = {name: zero if name != 'scale' else zero + 1 for name in parameters.pose}
    light = parameters.light | {'ambient': zero + 0.9, 'contrast': zero + 1, 'brightness': zero}
    identity = parameters.identity | {'beard': zero, 'glasses': zero + 1, 'mouth_rest': zero}
    return parameters.replace(identity=identity, pose=pose, light=light, blur=zero, noise=zero)


def row_of(y, size=48):
    return round(y * size / 2 + (size - 1) / 2)


@pytest.fixture(scope='module')
def dataset():
    return load_synthetic(3000, 100, 1000, seed=3)


def test_a_face_depends_on_seed_and_index_alone():
    batch = sample_parameters(0, np.arange(40))
    alone = sample_parameters(0, [17])
    shuffled = sample_parameters(0, [30, 17, 5])
    assert_trees_equal(rows(batch, slice(17, 18)), alone)
    assert_trees_equal(rows(batch, np.array([30, 17, 5])), shuffled)
    other = sample_parameters(1, [17])
    assert other[0].pose['yaw'] != alone[0].pose['yaw']
    assert other[0].identity['chin'] != alone[0].identity['chin']


def test_pixels_do_not_depend_on_the_batch():
    parameters, _ = sample_parameters(0, np.arange(300))
    images = render(parameters)
    np.testing.assert_array_equal(render(rows(parameters, slice(17, 18)))[0], images[17])
    np.testing.assert_array_equal(render(rows(parameters, slice(290, 300))), images[290:])


def test_a_subject_keeps_its_identity_and_changes_the_rest():
    parameters, truth = sample_parameters(0, np.arange(32))
    assert list(truth.subject) == [0] * 16 + [1] * 16
    for values in parameters.identity.values():
        assert len(set(values[:16].tolist())) == len(set(values[16:].tolist())) == 1
    assert parameters.identity['chin'][0] != parameters.identity['chin'][16]
    assert len(set(parameters.pose['yaw'].tolist())) == 32


def test_units_are_those_of_the_prototypes():
    assert PROTOTYPES['happiness'] == ('AU6', 'AU12L', 'AU12R')
    assert PROTOTYPES['contempt'] == ('AU12R', 'AU14R')
    _, truth = sample_parameters(0, np.arange(400), blend_rate=0.0, min_intensity=0.3)
    for emotion, intensity, units in zip(truth.emotion, truth.intensity, truth.units, strict=True):
        moved = {name for name, value in zip(ACTION_UNITS, units, strict=True) if value > 0}
        assert moved == set(PROTOTYPES[EMOTIONS[emotion]])
        assert units.max() <= intensity and (units[units > 0] >= 0.7 * intensity).all()


def test_blends_move_the_units_of_both_emotions_the_dominant_ones_more():
    _, truth = sample_parameters(0, np.arange(2000), blend_rate=0.5)
    blended = truth.blend_emotion >= 0
    assert 0.45 < blended.mean() < 0.55
    assert (truth.blend_emotion != truth.emotion).all()
    assert (truth.blend_weight[blended] <= 0.5).all() and (truth.blend_weight[~blended] == 0).all()
    for k in np.flatnonzero(blended):
        both = {*PROTOTYPES[EMOTIONS[truth.emotion[k]]], *PROTOTYPES[EMOTIONS[truth.blend_emotion[k]]]}
        assert {ACTION_UNITS[u] for u in np.flatnonzero(truth.units[k])} == both


def test_defaults_are_balanced_and_reach_from_weak_to_full():
    _, truth = sample_parameters(0, np.arange(800))
    assert np.bincount(truth.emotion).tolist() == [100] * 8
    assert 0.15 <= truth.intensity.min() < 0.2 and 0.95 < truth.intensity.max() <= 1
    assert 0.1 < (truth.blend_emotion >= 0).mean() < 0.2


def test_paired_truth_changes_the_face_and_nothing_around_it():
    parameters, truth = sample_parameters(0, np.arange(64), blend_rate=0.0)
    centred = parameters.replace(pose=facing(parameters).pose)
    pairs = {name: with_emotion(centred, truth, name, 1.0) for name in ('neutral', 'surprise')}
    assert (pairs['surprise'][1].emotion == EMOTIONS.index('surprise')).all()
    neutral, surprise = (render(pairs[name][0]).astype(int) for name in ('neutral', 'surprise'))
    changed = (neutral != surprise).mean((0, 3))
    assert changed[:4].max() == 0 and changed[:36, :3].max() == 0 and changed[:36, -3:].max() == 0
    assert changed[row_of(0.6), 20:28].min() > 0.9
    assert_trees_equal(with_emotion(parameters, truth, 'neutral')[0].pose, parameters.pose)
    with pytest.raises(UserError, match='joy'):
        with_emotion(parameters, truth, 'joy')


def test_mouth_corners_rise_in_happiness_and_fall_in_sadness():
    parameters, truth = sample_parameters(0, np.arange(0, 640, 16))
    parameters = facing(parameters)
    heights = {}
    for emotion, corner_x in (('happiness', 0.33), ('neutral', 0.24), ('sadness', 0.24)):
        images = render(with_emotion(parameters, truth, emotion, 1.0)[0])[..., 0].astype(float)
        low, high = row_of(0.42), row_of(0.76)
        # The darkest row of a column just inside the left corner, between nose and chin.
        column = images[:, low:high, row_of(-corner_x)]
        heights[emotion] = low + column.argmin(1)
    assert heights['happiness'].mean() < heights['neutral'].mean() - 1
    assert heights['neutral'].mean() < heights['sadness'].mean() - 1
    assert (heights['happiness'] < heights['sadness']).mean() > 0.85


def test_contempt_moves_the_persons_right_side_most():
    parameters, truth = sample_parameters(0, np.arange(0, 320, 16))
    parameters = facing(parameters)
    images = {
        name: render(with_emotion(parameters, truth, name, 1.0)[0]).astype(int) for name in ('neutral', 'contempt')
    }
    changed = (np.abs(images['contempt'] - images['neutral'])[..., 0] > 8).sum((0, 1)) / 20
    assert changed[:22].sum() > 30
    assert changed[:22].sum() > 2 * changed[26:].sum()


@pytest.mark.parametrize(('size', 'channels'), [(32, 1), (224, 3)])
def test_sizes_and_channels(size, channels):
    parameters, _ = sample_parameters(0, np.arange(4))
    images = render(parameters, size, channels)
    assert images.shape == (4, size, size, channels) and images.dtype == np.uint8
    assert images.max() > 200 and images.min() < 50
    assert (np.ptp(images.astype(int), axis=-1).max() > 30) == (channels == 3)


def test_render_refuses_what_it_cannot_draw():
    parameters, _ = sample_parameters(0, np.arange(2))
    with pytest.raises(ValueError, match='channels'):
        render(parameters, 48, 2)
    assert render(rows(parameters, slice(0, 0))).shape == (0, 48, 48, 1)


def test_draw_traces_without_being_run():
    parameters, _ = sample_parameters(0, np.arange(5))
    out = jax.eval_shape(lambda faces: draw(faces, 64, 3), parameters)
    assert out.shape == (5, 64, 64, 3) and out.dtype == np.uint8


def test_splits_share_no_subject_and_are_balanced(dataset):
    subjects = [set(split.extra['subject']) for split in dataset.splits.values()]
    assert not (subjects[0] & subjects[1] or subjects[0] & subjects[2] or subjects[1] & subjects[2])
    ids = np.concatenate([split.ids for split in dataset.splits.values()])
    assert len(set(ids)) == 4100 and ids[-1] == 'synthetic_000999'
    assert dataset.manifest['counts']['train'] == dict.fromkeys(EMOTIONS, 375)
    assert dataset.splits['test'].labels.dtype == np.int32
    hashes = np.concatenate([split.pixel_hashes for split in dataset.splits.values()])
    assert len(set(hashes)) == 4100


def test_a_longer_split_begins_with_the_shorter_one():
    small = load_synthetic(80, 16, 16, classes=('fear', 'anger', 'neutral'))
    large = load_synthetic(80, 16, 24, classes=('fear', 'anger', 'neutral'))
    assert large.class_names == ('anger', 'fear', 'neutral')
    np.testing.assert_array_equal(large.splits['test'].images[:16], small.splits['test'].images)
    for split in large.splits.values():
        np.testing.assert_array_equal(split.labels, split.extra['true_label'])
    assert large.manifest_hash != small.manifest_hash
    assert load_synthetic(80, 16, 16, classes=('fear', 'anger', 'neutral')).manifest_hash == small.manifest_hash


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'classes': ('anger', 'joy')}, 'joy'),
        ({'classes': ('anger',)}, 'two or more'),
        ({'min_intensity': 0.9, 'max_intensity': 0.2}, 'min_intensity'),
        ({'channels': 4}, '4 channels'),
        ({'num_test': 10**6}, 'test'),
    ],
)
def test_wrong_arguments_end_with_one_line(arguments, message):
    with pytest.raises(UserError, match=message):
        load_synthetic(**{'num_train': 8, 'num_validation': 8, 'num_test': 8} | arguments)


def test_a_linear_model_on_pixels_does_badly(dataset):
    pixels = {name: split.images.reshape(len(split), -1) / 255 for name, split in dataset.splits.items()}
    mean, scale = pixels['train'].mean(0), pixels['train'].std(0) + 1e-3
    best = 0.0
    for strength in (1e3, 1e4, 1e5):
        model = RidgeClassifier(alpha=strength).fit((pixels['train'] - mean) / scale, dataset.splits['train'].labels)
        best = max(best, model.score((pixels['test'] - mean) / scale, dataset.splits['test'].labels))
    assert 0.13 < best < 0.60
