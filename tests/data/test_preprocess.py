import jax
import numpy as np
import pytest

from fer_jax.data.preprocess import VIEWS, Preprocessing, normalize, pixel_figures, views
from fer_jax.errors import UserError


def random_images(n=3, side=12, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, channels)).astype(np.uint8)


def plain(size=12, channels=1, crop=0):
    return Preprocessing(size, channels, crop, mean=0.0, deviation=1.0)


@pytest.mark.parametrize('crop', [0, 10])
@pytest.mark.parametrize(('tta', 'count'), [('none', 1), ('flip', 2), ('five_crop', 5), ('ten_crop', 10)])
def test_the_number_and_side_of_the_views(tta, count, crop):
    how = plain(crop=crop)
    assert views(random_images(), tta, how).shape == (count, 3, crop or 12, crop or 12, 1)
    assert VIEWS[tta] == count


def test_the_window_is_central():
    images = random_images()
    np.testing.assert_array_equal(views(images, 'none', plain())[0], images)
    np.testing.assert_array_equal(views(images, 'none', plain(crop=8))[0], images[:, 2:10, 2:10])
    np.testing.assert_array_equal(views(images, 'none', plain(crop=9))[0], images[:, 1:10, 1:10])


def test_flip_adds_the_mirror_image_of_the_window():
    images = random_images()
    centre, mirror = views(images, 'flip', plain(crop=8))
    np.testing.assert_array_equal(centre, images[:, 2:10, 2:10])
    np.testing.assert_array_equal(mirror, images[:, 2:10, 9:1:-1])


def test_five_and_ten_crops_are_corners_centre_and_their_mirrors():
    images = random_images()
    expected = [
        images[:, :8, :8],
        images[:, :8, 4:],
        images[:, 4:, :8],
        images[:, 4:, 4:],
        images[:, 2:10, 2:10],
    ]
    np.testing.assert_array_equal(views(images, 'five_crop', plain(crop=8)), expected)
    expected += [cut[:, :, ::-1] for cut in expected]
    np.testing.assert_array_equal(views(images, 'ten_crop', plain(crop=8)), expected)


def test_without_a_crop_the_windows_have_11_twelfths_of_the_side_resized_back():
    images = random_images(2, 24)
    out = views(images, 'five_crop', plain(24))
    corner = images[:, 2:, :22].astype(np.float32)
    np.testing.assert_array_equal(out[2], jax.image.resize(corner, (2, 24, 24, 1), 'bilinear'))
    flat = np.full((1, 24, 24, 1), 77, np.uint8)
    np.testing.assert_allclose(views(flat, 'ten_crop', plain(24)), 77, rtol=1e-6)


def test_normalisation_by_the_data_sets_figures_and_by_the_images_own():
    images = random_images().astype(np.float32)
    by_set = normalize(images, Preprocessing(12, 1, mean=100.0, deviation=50.0))
    np.testing.assert_allclose(by_set, (images - 100) / 50, rtol=1e-6)
    own = np.asarray(normalize(images, Preprocessing(12, 1, normalize='image')))
    np.testing.assert_allclose(own.mean((1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(own.std((1, 2, 3)), 1, rtol=1e-5)


def test_a_flat_image_is_not_blown_up():
    image = np.full((1, 4, 4, 1), 90, np.float32)
    image[0, 0, 0] = 94
    out = np.asarray(normalize(image, Preprocessing(4, 1, normalize='image')))
    assert np.abs(out).max() == pytest.approx((94 - 90.25) / 8)


def test_an_images_own_normalisation_forgets_brightness_and_contrast():
    images = random_images().astype(np.float32)
    how = Preprocessing(12, 1, normalize='image')
    np.testing.assert_allclose(normalize(0.5 * images + 30, how), normalize(images, how), atol=1e-5)


def test_the_figures_are_numpys_in_however_many_parts(monkeypatch):
    images = random_images(50, 9, 3)
    images[::7] = 255
    expected = (round(images.mean(dtype=np.float64), 4), round(images.std(dtype=np.float64), 4))
    assert pixel_figures(images) == expected
    monkeypatch.setattr('fer_jax.data.preprocess._TOGETHER', 7 * 9 * 9 * 3)
    assert pixel_figures(images) == expected
    assert pixel_figures(np.array([[[[0], [255]]]], np.uint8)) == (127.5, 127.5)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: Preprocessing(12, 1, normalize='both'), 'normalize'),
        (lambda: Preprocessing(12, 1, crop=13), 'crop is 13'),
        (lambda: Preprocessing(12, 1, crop=-1), 'crop is -1'),
        (lambda: views(random_images(), 'flop', plain()), 'flop'),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()
