"""A pair through the train command: tiny networks on drawn rows, a few steps."""

import json
import os
import signal
import struct

import jax
import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from fer_jax import run_json, tasks, train
from fer_jax.data.pairs import PairFeed
from fer_jax.data.synthetic import load_synthetic
from fer_jax.errors import UserError
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.stopping import Stopped
from fer_jax.translators import find_pairs, load_translators
from tests.small_pair import PAIR


def lines(workdir):
    with open(os.path.join(workdir, 'metrics.jsonl')) as file:
        return [json.loads(line) for line in file]


@pytest.fixture
def trained(make_run):
    return make_run(**PAIR)


def test_a_pair_leaves_a_run_like_any_other(trained):
    assert Checkpoints(trained).members(9) == [2, 4]
    run = run_json.read_run(trained)
    assert (run.config.pair, run.preprocessing.size, run.preprocessing.channels) == (('anger', 'happiness'), 12, 1)
    assert run.summary['train_flops_per_image'] > 3 * run.summary['flops_per_image'] > 0
    parts = [f'{part}_{domain}' for part in ('cycle', 'identity', 'discriminator') for domain in 'ab']
    for line in lines(trained):
        whole = sum(line[f'train/{part}'] * {'c': 10, 'i': 5, 'd': 1}[part[0]] for part in parts)
        whole += line['train/adversarial_a_to_b'] + line['train/adversarial_b_to_a']
        assert line['train/loss'] == pytest.approx(whole, rel=1e-4)
        assert 0 <= line['train/judged_rightly'] <= 1
        assert 'train/accuracy' not in line
    assert lines(trained)[-1]['learning_rate'] > 0


def test_translators_serve_both_directions_from_the_chosen_checkpoint(trained, dataset):
    translators = load_translators(find_pairs([os.path.dirname(trained)]))
    assert list(translators) == [('anger', 'happiness'), ('happiness', 'anger')]
    images = dataset.splits['test'].images
    there, back = translators.values()
    assert (there.step, there.size, there.channels) == (4, 12, 1)
    made = there(images)
    assert (made.shape, made.dtype) == (images.shape, np.uint8)
    np.testing.assert_array_equal(there(images[:3]), made[:3])
    assert (made != back(images)).any()
    many = np.concatenate([images] * (there.batch_size // len(images) + 2))
    np.testing.assert_array_equal(there(many)[: len(images)], made)
    assert there(images[:0]).shape == (0, 12, 12, 1)
    with pytest.raises(UserError, match=r'translates uint8 images \[12, 12, 1\], not uint8 \[12, 12, 3\]'):
        there(np.repeat(images, 3, -1))


def test_a_pair_that_is_stopped_goes_on_to_the_same_bits(make_run, tmp_path, trained, monkeypatch):
    states, real_loop, real_batches = [], train.run_loop, PairFeed.batches
    monkeypatch.setattr(train, 'run_loop', lambda *given: states.append(real_loop(*given)))

    def batches(self, step, *given):
        if step == 2 and not Checkpoints(str(tmp_path / 'stopped')).steps()[1:]:
            os.kill(os.getpid(), signal.SIGTERM)
        return real_batches(self, step, *given)

    whole = make_run('whole', **PAIR, evaluation__batch_size=8)
    monkeypatch.setattr(PairFeed, 'batches', batches)
    with pytest.raises(Stopped):
        make_run('stopped', **PAIR, evaluation__batch_size=4)
    stopped = str(tmp_path / 'stopped')
    assert Checkpoints(stopped).steps() == [2, 3]
    make_run('stopped', **PAIR, evaluation__batch_size=4)
    drop = lambda found, part: [{name: line[name] for name in line if name.startswith(part)} for line in found]
    for part in ('step', 'epoch', 'examples', 'learning_rate', 'train/'):
        assert drop(lines(stopped), part) == drop(lines(whole), part) == drop(lines(trained), part)
    for found in (lines(stopped), lines(whole)):  # batches of other sizes may be rounded otherwise
        for line, expected in zip(drop(found, 'validation/'), drop(lines(trained), 'validation/'), strict=True):
            assert line == pytest.approx(expected, rel=1e-4)
    one, other = (jax.tree.leaves(jax.device_get(state)) for state in states)
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_several_pairs_that_are_stopped_go_on_with_what_is_left(make_run, make_config, tmp_path, monkeypatch):
    alone = make_run('alone', **PAIR | {'pair': ('fear', 'happiness')})
    config = make_config(**PAIR, pairs=('anger=happiness', 'fear=happiness'))
    workdir, real_batches = tmp_path / 'several', PairFeed.batches
    first, second = (str(workdir / name) for name in ('anger_to_happiness', 'fear_to_happiness'))

    def batches(self, step, *given):
        if step == 2 and os.path.exists(second) and Checkpoints(second).steps() == [2]:
            os.kill(os.getpid(), signal.SIGTERM)
        return real_batches(self, step, *given)

    monkeypatch.setattr(PairFeed, 'batches', batches)
    monkeypatch.setattr(Checkpoints, 'save', _and_wait(Checkpoints.save))
    with pytest.raises(Stopped):
        train._train_pairs(config, str(workdir), [], False)
    assert (Checkpoints(first).steps(), Checkpoints(second).steps()) == ([2, 4], [2, 3])
    before = os.stat(os.path.join(first, 'checkpoints', '4')).st_mtime_ns
    assert train._train_pairs(config, str(workdir), [], False) == 0
    assert os.stat(os.path.join(first, 'checkpoints', '4')).st_mtime_ns == before
    losses = lambda run: [line['train/loss'] for line in lines(run)]
    assert losses(second) == losses(alone) != losses(first)
    assert run_json.read_run(second).config == run_json.read_run(alone).config
    assert find_pairs([workdir]) == [first, second]
    assert len(load_translators(find_pairs([workdir]))) == 4


def _and_wait(save):
    def save_and_wait(self, *given):
        save(self, *given)
        self.wait()

    return save_and_wait


@pytest.fixture
def judged(make_run):
    """A pair with a judge."""
    return make_run('judged', **PAIR, cyclegan__judge=make_run('judge'))


def test_translations_of_validation_images_are_scored_and_choose_the_checkpoint(judged):
    found = [line for line in lines(judged) if 'validation/score' in line]
    assert [line['step'] for line in found] == [2, 4]
    for line in found:
        kids = [line[f'validation/kid_{way}'] for way in ('a_to_b', 'b_to_a')]
        assert line['validation/score'] == pytest.approx(-sum(kids) / 2)
        assert 0 <= line['validation/read_a_to_b'] <= 1
        assert line['validation/real_read_a'] == found[0]['validation/real_read_a']
    best = max(found, key=lambda line: line['validation/score'])
    assert Checkpoints(judged).best() == best['step']
    (one, other) = load_translators([judged]).values()
    assert one.step == other.step == best['step']
    with open(os.path.join(judged, 'pair.json')) as file:
        chosen = json.load(file)
    assert (chosen['step'], chosen['chosen_by']) == (best['step'], 'validation/score')
    assert chosen['metrics']['validation/kid_b_to_a'] == best['validation/kid_b_to_a']
    assert_sheets_are_drawn_and_go_to_tensorboard(judged)


def assert_sheets_are_drawn_and_go_to_tensorboard(workdir):
    names = ['samples_0000002.png', 'samples_0000004.png']
    assert sorted(os.listdir(os.path.join(workdir, 'figures'))) == names
    shown = []
    for name in os.listdir(os.path.join(workdir, 'events')):
        for event in read_events(os.path.join(workdir, 'events', name)):
            shown += [(event.step, value.image) for value in event.summary.value if value.tag == 'samples']
    assert [step for step, _ in shown] == [2, 4]
    with open(os.path.join(workdir, 'figures', names[1]), 'rb') as file:
        assert shown[1][1].encoded_image_string == file.read()
    with Image.open(os.path.join(workdir, 'figures', names[1])) as picture:
        assert picture.size == (shown[1][1].width, shown[1][1].height)


def test_the_paired_truth_is_the_same_face_under_the_other_emotion():
    data = load_synthetic(8, 16, 8, size=16)
    split = data.splits['validation']
    neutral = split.select(split.labels == data.class_names.index('neutral'))
    truth = tasks.cyclegan._paired_truth(data, neutral, 'happiness')
    assert truth.shape == neutral.images.shape
    apart = lambda one, other: np.abs(one.astype(float) - other).mean()
    assert 0 < apart(truth, neutral.images) < apart(truth, neutral.images[::-1]) / 2
    pure = neutral.extra['blend_emotion'] == -1
    itself = tasks.cyclegan._paired_truth(data, neutral, 'neutral')
    np.testing.assert_array_equal(itself[pure], neutral.images[pure])


def read_events(path):
    with open(path, 'rb') as file:
        while header := file.read(12):  # a TFRecord: length, its sum, the record, its sum
            yield Event.FromString(file.read(struct.unpack('<Q', header[:8])[0]))
            file.read(4)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'task': 'gan'}, "config.task is 'gan'; it can be classify, cyclegan"),
        ({'pair': ('anger', 'joy')}, "config.pair names 'joy', which rows does not have; its classes: anger, fear"),
        ({'pair': ('anger', 'anger')}, 'config.pair is anger, anger; two different classes are wanted'),
        ({'train__mixup': 0.5}, 'config.train.mixup is for classifiers; a pair has no use for it'),
        ({'evaluation__splits': ('test',)}, 'config.evaluation.splits is for classifiers'),
        ({'schedule__name': 'plateau'}, 'schedule.name=plateau goes by the validation loss'),
        ({'train__early_stopping': 2}, 'early_stopping goes by the score of config.cyclegan.judge'),
        ({'cyclegan__width': 0}, 'config.cyclegan.width is 0; at least 1 is wanted'),
        ({'cyclegan__discriminator_layers': 4}, 'images'),
    ],
)
def test_what_does_not_fit_a_pair_is_one_line(make_run, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        make_run('wrong', **PAIR | changes)
    assert '\n' not in str(caught.value)


def test_pairs_are_looked_for_where_they_are_said_to_be(make_run, tmp_path):
    classifier = make_run('classifier')
    with pytest.raises(UserError, match='is no run of a pair and holds none'):
        find_pairs([classifier])
    with pytest.raises(UserError, match='is a classifier; the run of a pair is wanted'):
        load_translators([classifier])
    with pytest.raises(UserError, match='is no run'):
        find_pairs([tmp_path / 'nowhere'])
