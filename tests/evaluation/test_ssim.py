import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from fer_jax.errors import UserError
from fer_jax.evaluation.ssim import Window, score_images, ssim

UNIFORM, POPULATION = Window(), Window(use_sample_covariance=False)
GAUSSIAN, WANG = Window('gaussian'), Window('gaussian', use_sample_covariance=False)


def reference(first, second, data_range, window):
    """scikit-image's, pair by pair, in double precision."""
    options = {'gaussian_weights': True, 'sigma': window.sigma} if window.kind == 'gaussian' else {}
    return [
        structural_similarity(
            one.astype(np.float64),
            other.astype(np.float64),
            win_size=window.side,
            data_range=data_range,
            channel_axis=-1 if first.ndim == 4 else None,
            use_sample_covariance=window.use_sample_covariance,
            **options,
        )
        for one, other in zip(first, second, strict=True)
    ]


def pictures(random, shape, kind):
    """Pairs with values from 0 to 1, from alike to opposite."""
    first, other = random.random(shape), random.random(shape)
    if kind == 'alike':
        return first, np.clip(first + 0.05 * (other - 0.5), 0, 1)
    if kind == 'smooth':  # as faces are: slow changes at both ends of the range
        y = np.linspace(0, 3, shape[1]).reshape(1, -1, *[1] * (len(shape) - 2))
        return np.sin(y + first[:, :1]) ** 2 * np.ones(shape), np.cos(y + 0.04 * other) ** 2
    if kind == 'steps':  # flat black beside flat white, a little noise: the variance is a difference of large numbers
        first = np.round(first[:, :1]) * np.ones(shape)
        return first, np.clip(np.abs(first - 0.12 * other), 0, 1)
    return first, 1 - first


KINDS = ('alike', 'smooth', 'steps', 'opposite')
RANGES = [(0, 1), (-1, 2), (1000, 30), (0, 255)]
CASES = [
    ((7, 7), (UNIFORM, Window(side=3))),
    ((13, 12, 2), (POPULATION, GAUSSIAN)),
    ((33, 20, 3), (UNIFORM, Window('gaussian', sigma=0.8))),
    ((48, 48, 1), (UNIFORM, WANG, Window(side=15))),
    ((97, 64, 3), (POPULATION, GAUSSIAN)),
    ((11, 31), (WANG, Window(side=11))),
]


@pytest.mark.parametrize(('shape', 'windows'), CASES, ids=str)
def test_equal_to_scikit_images(shape, windows):
    random = np.random.default_rng(sum(shape))
    pairs = [pictures(random, (1, *shape), kind) for kind in KINDS]
    first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
    for window in windows:
        for low, data_range in RANGES:
            floats = [(low + data_range * images).astype(np.float32) for images in (first, second)]
            found = ssim(*floats, data_range=data_range, window=window)
            expected = reference(*floats, data_range, window)
            np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=f'{window} {low} {data_range}')
        pixels = [np.round(255 * images).astype(np.uint8) for images in (first, second)]
        found, expected = ssim(*pixels, window=window), reference(*pixels, 255.0, window)
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=f'{window} uint8')
        assert max(expected) - min(expected) > 0.5


def test_the_mean_over_a_large_image_keeps_its_digits():
    random = np.random.default_rng(0)
    first, second = (random.integers(0, 256, (1, 256, 256, 3)).astype(np.uint8) for _ in range(2))
    for window in (UNIFORM, WANG):
        expected = reference(first, second, 255.0, window)
        np.testing.assert_allclose(ssim(first, second, window=window), expected, atol=1e-6)


@pytest.mark.parametrize('side', [11, 13])
def test_the_brightest_pixels_under_the_largest_windows(side):
    """Of 11 pixels a side, the sums just fit into an integer; wider windows are summed as floats."""
    first = np.full((1, 16, 16), 255, np.uint8)
    second = first - np.random.default_rng(0).integers(0, 3, first.shape).astype(np.uint8)
    window = Window(side=side)
    assert float(ssim(first, first, window=window)[0]) == 1.0
    expected = reference(first, second, 255.0, window)
    np.testing.assert_allclose(ssim(first, second, window=window), expected, atol=1e-5)


def test_an_image_is_like_itself_and_unlike_its_negative():
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16)).astype(np.uint8)
    for window in (UNIFORM, GAUSSIAN):
        assert ssim(images, images, window=window).tolist() == [1.0, 1.0]
        assert (ssim(images, 255 - images, window=window) < 0).all()
    flat = np.full((1, 16, 16), 255, np.uint8)
    assert float(ssim(flat, flat)[0]) == 1.0


def test_the_range_decides_floats():
    """Pixels from 0 to 255 as floats: taken as 0 to 1, as seed 001 did, the similarity is another."""
    first, second = (np.random.default_rng(seed).integers(90, 110, (1, 16, 16)) for seed in (0, 1))
    first, second = first.astype(np.float32), second.astype(np.float32)
    right, wrong = ssim(first, second, data_range=255.0), ssim(first, second, data_range=1.0)
    assert float(right[0]) - float(wrong[0]) > 0.1
    with pytest.raises(UserError, match='needs data_range above 0'):
        ssim(first, second)


@pytest.mark.parametrize(
    ('shapes', 'options', 'message'),
    [
        (((1, 6, 40), (1, 6, 40)), {}, '40x6 pixels are smaller than the uniform window of SSIM, 7 pixels'),
        (((1, 10, 10), (1, 10, 10)), {'window': GAUSSIAN}, 'the gaussian window of SSIM, 11 pixels'),
        (((1, 8, 8), (1, 8, 9)), {}, r'of one shape and type; these are uint8\[1, 8, 8\] and uint8\[1, 8, 9\]'),
        (((8, 8), (8, 8)), {}, r'\[N, H, W\] or \[N, H, W, C\]; these are \[8, 8\]'),
        (((1, 8, 8), (1, 8, 8)), {'data_range': -1.0}, 'data_range above 0'),
    ],
)
def test_what_cannot_be_compared_is_refused(shapes, options, message):
    with pytest.raises(UserError, match=message):
        ssim(*(jnp.zeros(shape, jnp.uint8) for shape in shapes), **options)


@pytest.mark.parametrize('options', [{'kind': 'round'}, {'side': 8}, {'side': 1}, {'kind': 'gaussian', 'sigma': 0.0}])
def test_windows_that_are_none_are_refused(options):
    with pytest.raises(UserError, match='SSIM'):
        Window(**options)


@pytest.mark.parametrize('n', [0, 1, 7, 8, 9, 16, 21])
def test_every_image_is_scored_once_under_its_own_id(n):
    """Seed 001 gave the flags of each class's last batch to the wrong images."""
    values = np.random.default_rng(n).permutation(n).astype(np.float32)
    images = np.broadcast_to(values[:, None, None], (n, 2, 2))
    shapes, seen = set(), []

    def score(batch):
        shapes.add(batch.shape)
        seen.extend(batch[:, 0, 0].tolist())
        return jnp.asarray(batch[:, 0, 0]) / 64

    scores = score_images(score, np.array([f'face_{value:.0f}' for value in values]), images, batch_size=8)
    assert scores == {f'face_{value:.0f}': value / 64 for value in values}
    assert list(scores) == [f'face_{value:.0f}' for value in values]
    assert shapes == ({(8, 2, 2)} if n else set())  # one program
    assert seen[:n] == values.tolist()
    assert len(seen) == -(-n // 8) * 8


def test_pairs_are_scored_as_pairs():
    random = np.random.default_rng(0)
    first, second = (random.integers(0, 256, (5, 12, 12, 3)).astype(np.uint8) for _ in range(2))
    scores = score_images(ssim, np.array(list('abcde')), first, second, batch_size=2)
    np.testing.assert_allclose(list(scores.values()), reference(first, second, 255.0, UNIFORM), atol=1e-5)


def test_images_are_scored_against_what_a_translator_makes_of_their_batch():
    images = np.random.default_rng(0).integers(0, 256, (7, 12, 12, 1)).astype(np.uint8)
    translate = lambda batch: batch[:, ::-1] // 2 + 20
    ids = np.array(list('gfedcba'))
    scores = score_images(lambda batch: ssim(batch, translate(batch)), ids, images, batch_size=3)
    assert list(scores) == ids.tolist()
    np.testing.assert_allclose(list(scores.values()), reference(images, translate(images), 255.0, UNIFORM), atol=1e-5)


def test_ids_that_repeat_or_do_not_match_are_refused():
    images = np.zeros((3, 8, 8), np.uint8)
    with pytest.raises(UserError, match="the id 'b' occurs more than once"):
        score_images(ssim, np.array(['b', 'a', 'b']), images, images, batch_size=2)
    with pytest.raises(UserError, match='2 ids for 3 images'):
        score_images(ssim, np.array(['a', 'b']), images, batch_size=2)
