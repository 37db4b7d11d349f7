import numpy as np
import pytest

from fer_jax.evaluation.translations import Judge, Scorer, kid

BRIGHT = 128


@pytest.mark.parametrize(('n', 'm', 'd'), [(7, 5, 3), (40, 60, 128)])
def test_kid_is_the_unbiased_mmd_of_scikit_learns_kernel(n, m, d):
    pairwise = pytest.importorskip('sklearn.metrics.pairwise')
    random = np.random.default_rng(n)
    x, y = random.normal(size=(n, d)).astype(np.float32), random.normal(0.3, 1.5, (m, d)).astype(np.float32)
    kernel = lambda a, b: pairwise.polynomial_kernel(np.float64(a), np.float64(b), degree=3, gamma=1 / d, coef0=1)
    expected = kernel(x, x)[~np.eye(n, dtype=bool)].mean() + kernel(y, y)[~np.eye(m, dtype=bool)].mean()
    expected -= 2 * kernel(x, y).mean()
    assert kid(x, y) == pytest.approx(expected, rel=1e-9)


def test_kid_of_one_distribution_is_0_on_average():
    random = np.random.default_rng(0)
    found = [kid(*random.normal(size=(2, 20, 4))) for _ in range(400)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 20
    assert min(found) < 0  # unbiased: it is not cut off


def read(images):
    """Reads brightness: class 2 is dark, class 5 is bright."""
    levels = images.reshape(len(images), -1).mean(1)
    return np.where(levels < BRIGHT, 2, 5), np.stack([levels / 64, levels % 7], 1)


def draw(low, high, seed, count=30):
    return np.random.default_rng(seed).integers(low, high, (count, 4, 4, 1)).astype(np.uint8)


IMAGES = {'a': draw(20, 60, 0), 'b': draw(180, 240, 1)}
JUDGE = Judge('brightness', {'a': 2, 'b': 5}, read)


def test_a_translation_that_does_nothing_scores_as_the_untranslated():
    scores = Scorer(IMAGES, JUDGE, {'a_to_b': IMAGES['a'] + 100}).score(lambda direction, images: images)
    for name in ('read_a_to_b', 'read_b_to_a', 'kid_a_to_b', 'paired_a_to_b'):
        assert scores[f'validation/{name}'] == scores[f'validation/untranslated_{name}']
    assert scores['validation/read_a_to_b'] == scores['validation/changed_a_to_b'] == scores['validation/cycle_b'] == 0
    assert scores['validation/real_read_a'] == scores['validation/real_read_b'] == 1
    assert scores['validation/paired_a_to_b'] == pytest.approx(100 / 127.5)
    assert 'validation/paired_b_to_a' not in scores


def test_the_score_is_minus_the_mean_kid_and_is_best_where_translations_are_like_real_ones():
    shift = {'a_to_b': 170, 'b_to_a': -170}
    scorer = Scorer(IMAGES, JUDGE)
    good = scorer.score(lambda way, images: np.clip(images.astype(int) + shift[way], 0, 255).astype(np.uint8))
    poor = scorer.score(lambda way, images: np.clip(images.astype(int) + shift[way] // 2, 0, 255).astype(np.uint8))
    assert good['validation/score'] == -(good['validation/kid_a_to_b'] + good['validation/kid_b_to_a']) / 2
    assert good['validation/score'] > poor['validation/score']
    assert good['validation/read_a_to_b'] == good['validation/read_b_to_a'] == 1
    features = np.stack([read(part)[1] for part in IMAGES.values()])
    features /= np.sqrt(np.square(features).mean())
    assert good['validation/untranslated_kid_a_to_b'] == pytest.approx(kid(*features))


def test_without_a_judge_there_is_no_score():
    assert {name.split('/')[1].rsplit('_', 1)[0] for name in Scorer(IMAGES).score(lambda way, images: images)} == {
        'cycle',
        'changed_a_to',
        'changed_b_to',
    }
