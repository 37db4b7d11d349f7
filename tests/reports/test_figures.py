import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib import image as mpl_image

from fer_jax.errors import UserError
from fer_jax.evaluation.scores import calibration, confusion_matrix, per_class_scores, softmax
from fer_jax.reports import figures


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


CASES = {
    'eight classes, one without support, one with four examples': (
        ['anger', 'contempt', 'disgust', 'fear', 'happiness', 'neutral', 'sadness', 'surprise'],
        [60, 0, 4, 50, 90, 80, 40, 30],
    ),
    'two classes, five examples': (['calm', 'a very long folder name that costs $5 or $6'], [3, 2]),
    'all of one class': (['calm', 'angry'], [0, 12]),
}


@pytest.fixture(params=CASES)
def case(request):
    """Class names, labels and probabilities."""
    names, counts = CASES[request.param]
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(names)), counts).astype(np.int32)
    logits = 2 * generator.normal(size=(len(labels), len(names)))
    logits[np.arange(len(labels)), labels] += 2
    return names, labels, softmax(logits)


def assert_drawn(path, least=(500, 300), most=(1800, 1600)):
    """The PNG has a sensible size, holds something besides white, and nothing touches its edge."""
    pixels = mpl_image.imread(path)[..., :3]
    height, width, _ = pixels.shape
    assert least[0] <= width <= most[0] and least[1] <= height <= most[1], (width, height)
    assert 0.01 < (pixels < 0.98).any(axis=-1).mean() < 0.95
    edge = np.concatenate([pixels[[0, -1]].reshape(-1, 3), pixels[:, [0, -1]].reshape(-1, 3)])
    assert (edge == 1).all(), 'something is cut off at the edge'


def test_confusion(case, tmp_path):
    names, labels, probabilities = case
    confusion = confusion_matrix(labels, probabilities.argmax(axis=1), len(names))
    for ratios in (False, True):
        path = figures.confusion(confusion, names, tmp_path / f'{ratios}.png', subtitle='test', ratios=ratios)
        assert_drawn(path)
    assert (tmp_path / 'True.png').read_bytes() != (tmp_path / 'False.png').read_bytes()


def test_bars_and_recall(case, tmp_path):
    names, labels, probabilities = case
    better = per_class_scores(confusion_matrix(labels, probabilities.argmax(axis=1), len(names)), names)
    worse = per_class_scores(confusion_matrix(labels, np.zeros_like(labels), len(names)), names)
    both = {'best single': worse, 'ensemble': better}
    assert_drawn(figures.f1_per_class(both, tmp_path / 'two.png', subtitle='test'))
    assert_drawn(figures.f1_per_class({'only member': better}, tmp_path / 'one.png', subtitle='test'))
    assert_drawn(figures.single_against_ensemble(worse, better, tmp_path / 'recall.png', subtitle='test'))


def test_distribution_and_reliability(case, tmp_path):
    names, labels, probabilities = case
    path = figures.performance_distribution(probabilities, labels, names, tmp_path / 'dist.png', subtitle='test')
    assert_drawn(path)
    assert_drawn(figures.reliability(calibration(probabilities, labels), tmp_path / 'rel.png', subtitle='test'))


def test_distribution_of_a_certain_classifier(tmp_path):
    labels = np.repeat([0, 1], 50)
    path = figures.performance_distribution(np.eye(2)[labels], labels, ['a', 'b'], tmp_path / 'd.png', subtitle='test')
    assert_drawn(path)


def test_class_counts(tmp_path):
    counts = {'train': {'anger': 134415, 'fear': 3}, 'validation': {'anger': 5}, 'test': {'anger': 0, 'fear': 0}}
    path = figures.class_counts(counts, ['anger', 'fear'], tmp_path / 'counts.png', subtitle='AffectNet')
    assert_drawn(path, least=(500, 200))


def test_faces_grey_and_in_colour(case, tmp_path):
    names, labels, probabilities = case
    channels = 1 if len(names) > 2 else 3
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 48, 48, channels), np.uint8)
    drawn = (images, labels, probabilities, names)
    assert_drawn(figures.example_faces(*drawn, tmp_path / 'faces.png', subtitle='test'))
    path = figures.confident_errors(*drawn, tmp_path / 'errors.png', subtitle='test')
    if (probabilities.argmax(axis=1) == labels).all():
        assert path is None and not (tmp_path / 'errors.png').exists()
    else:
        assert_drawn(path)


def test_errors_come_surest_first_and_examples_regardless_of_prediction():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.99, 0.01]])
    labels = np.array([1, 1, 0, 0])
    assert figures.pick_confident_errors(probabilities, labels).tolist() == [0, 2, 1]
    assert figures.pick_confident_errors(probabilities, labels, most=1).tolist() == [0]
    chosen = figures.pick_per_class(np.array([0] * 9 + [2]), 3, each=4)
    assert len(set(chosen.tolist())) == 5 and chosen[-1] == 9
    np.testing.assert_array_equal(chosen, figures.pick_per_class(np.array([0] * 9 + [2]), 3, each=4))


def test_metrics_of_a_killed_and_resumed_run_are_read(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    path.write_text(
        '{"step": 10, "train/loss": 2.0}\n{"step": 20, "train/loss": 9.0}\n{"step": 30, "tr\n'
        '{"step": 20, "train/loss": 1.5, "validation/accuracy": 0.5}\n{"step": 20, "validation/loss": 1.0}\n\n7\n'
    )
    assert figures.read_metrics(path) == [
        {'step': 10, 'train/loss': 2.0},
        {'step': 20, 'train/loss': 1.5, 'validation/accuracy': 0.5, 'validation/loss': 1.0},
    ]


def test_epoch_history(tmp_path):
    records = []
    for step in range(1, 241):
        record = {'step': step, 'epoch': step / 20, 'train/loss': 3 / step**0.3, 'train/accuracy': 1 - 1 / step**0.3}
        record['learning_rate'] = 0.01 * (1 - step / 240)
        if step % 20 == 0:
            record |= {'validation/loss': 1.0, 'validation/accuracy': 0.6, 'validation/macro_f1': 0.5}
        records.append(record)
    assert_drawn(figures.epoch_history(records, tmp_path / 'history.png', subtitle='run'), least=(800, 800))


@pytest.mark.parametrize(
    'records',
    [
        [{'step': 1, 'validation/accuracy': 0.5}],
        [{'step': 1, 'train/loss': float('nan')}, {'step': 2, 'train/loss': 2.0}, {'step': 3, 'train/loss': None}],
        [{'step': 1, 'epoch': 0.0, 'train/loss': 900.0}, *({'step': s, 'train/loss': 2.0} for s in range(2, 60))],
        [{'step': 1, 'learning_rate': 0.1}],
    ],
)
def test_history_of_few_or_odd_numbers(tmp_path, records):
    assert figures.has_history(records)
    assert_drawn(figures.epoch_history(records, tmp_path / 'history.png', subtitle='run'))


def test_metrics_without_anything_to_draw_are_refused(tmp_path):
    records = [{'step': 1, 'train/generator_loss': 3.0}, {'step': 2, 'train/loss': float('nan')}]
    assert not figures.has_history(records) and not figures.has_history([])
    with pytest.raises(UserError, match='no accuracy, loss or learning rate'):
        figures.epoch_history(records, tmp_path / 'history.png')


def test_drawing_leaves_the_settings_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    figures.confusion(np.eye(2, dtype=int), ['a', 'b'], tmp_path / 'c.png', subtitle='test')
    assert dict(matplotlib.rcParams) == before
    assert [file.name for file in tmp_path.iterdir()] == ['c.png']
