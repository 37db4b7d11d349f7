import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.transform import AffineTransform, warp

from fer_jax.config import default_config
from fer_jax.data.augment import Augmentation, affine_warp, augment, random_affine


def random_images(n=4, side=16, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, channels)).astype(np.uint8)


def matrices(n=500, source=(16, 16), target=(16, 16), seed=0, **ranges):
    return np.asarray(random_affine(jax.random.key(seed), n, source, target, Augmentation(**ranges)))


def reference(image, matrix, target):
    """scikit-image's warp; it takes (x, y) from the corner where ours takes (y, x) from the centre."""
    height, width = image.shape[:2]
    swap = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1.0]])
    to_centre = np.eye(3)
    to_centre[:2, 2] = [-(target[1] - 1) / 2, -(target[0] - 1) / 2]
    from_centre = np.eye(3)
    from_centre[:2, 2] = [(width - 1) / 2, (height - 1) / 2]
    xy = from_centre @ swap @ np.vstack([matrix, [0, 0, 1]]) @ swap @ to_centre
    return warp(image.astype(float), AffineTransform(xy), output_shape=target, order=1, mode='edge')


def test_nothing_asked_for_changes_nothing():
    images = random_images()
    out = augment(jax.random.key(0), images, Augmentation())
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, images)


def test_flip_is_the_exact_mirror_of_about_half_of_the_images():
    images = random_images(200, 9, 1)
    out = np.asarray(augment(jax.random.key(1), images, Augmentation(flip=True)))
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(out, images, strict=True)]
    kept = [np.array_equal(a, b) for a, b in zip(out, images, strict=True)]
    assert np.all(np.logical_xor(mirrored, kept))
    assert 70 < sum(mirrored) < 130


@pytest.mark.parametrize(
    'ranges',
    [
        {'rotate': 40.0},
        {'shift': 0.3},
        {'zoom': 0.4},
        {'shear': 25.0},
        {'crop_scale': 0.3, 'crop_aspect': 1.5},
        {'flip': True, 'rotate': 20.0, 'shift': 0.1, 'zoom': 0.2, 'shear': 10.0, 'crop_scale': 0.6},
    ],
)
@pytest.mark.parametrize(('source', 'target'), [((16, 16), (16, 16)), ((17, 13), (11, 12))])
def test_warp_agrees_with_scikit_image(ranges, source, target):
    images = np.random.default_rng(2).integers(0, 256, (5, *source, 3)).astype(np.uint8)
    matrices_N23 = matrices(5, source, target, **ranges)
    out = affine_warp(images, matrices_N23, target)
    for image, matrix, found in zip(images, matrices_N23, out, strict=True):
        np.testing.assert_allclose(found, reference(image, matrix, target), atol=0.02)


def test_a_quarter_turn_is_numpys():
    image = random_images(1, 7, 1)
    turn = np.array([[[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]], np.float32)  # output (y, x) reads source (x, -y)
    np.testing.assert_array_equal(affine_warp(image, turn, (7, 7))[0], np.rot90(image[0]))


def test_a_shift_repeats_the_edge_and_is_measured_in_fractions_of_the_side():
    moves = matrices(shift=0.25)
    np.testing.assert_array_equal(moves[:, :, :2], np.tile(np.eye(2), (500, 1, 1)))
    assert np.abs(moves[:, :, 2]).max() <= 4.0
    assert np.abs(moves[:, :, 2]).max() > 3.9
    image = random_images(1, 6, 1)
    shifted = affine_warp(image, np.array([[[1.0, 0, 2.0], [0, 1.0, 0]]], np.float32), (6, 6))[0]
    np.testing.assert_array_equal(shifted, image[0][[2, 3, 4, 5, 5, 5]])


def test_rotation_is_pure_and_within_its_range():
    turns = matrices(rotate=30.0)[:, :, :2]
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.tile(np.eye(2), (500, 1, 1)), atol=1e-6)
    degrees = np.rad2deg(np.arctan2(turns[:, 1, 0], turns[:, 0, 0]))
    assert 29.5 < degrees.max() <= 30.001
    assert -30.001 <= degrees.min() < -29.5
    assert abs(degrees.mean()) < 2.5


def test_zoom_scales_both_axes_alike_and_within_its_range():
    maps = matrices(zoom=0.2)[:, :, :2]
    scale = 1 / maps[:, 0, 0]
    np.testing.assert_array_equal(maps, maps[:, :1, :1] * np.eye(2))
    assert 0.8 - 1e-6 <= scale.min() < 0.81
    assert 1.19 < scale.max() <= 1.2 + 1e-6


def test_shear_keeps_the_area_and_its_range():
    maps = matrices(shear=20.0)[:, :, :2]
    np.testing.assert_allclose(np.linalg.det(maps), 1, rtol=1e-6)
    degrees = np.rad2deg(np.arctan(maps[:, 0, 1]))
    assert -20.001 <= degrees.min() < -19.5
    assert 19.5 < degrees.max() <= 20.001


def test_a_random_resized_crop_stays_inside_and_keeps_its_share_of_the_area():
    maps = matrices(1000, crop_scale=0.4)
    area = maps[:, 0, 0] * maps[:, 1, 1]
    assert 0.4 - 1e-6 <= area.min() < 0.41
    assert 0.99 < area.max() <= 1
    assert abs(area.mean() - 0.7) < 0.02
    for axis in (0, 1):  # the window's half side and its centre's distance add up to half the image at most
        reach = np.abs(maps[:, axis, 2]) + maps[:, axis, axis] * 8
        assert reach.max() <= 8 + 1e-5
        assert reach.max() > 7.9


def test_a_crops_sides_have_the_ratio_asked_for():
    maps = matrices(1000, crop_scale=0.2, crop_aspect=2.0)
    ratio = maps[:, 0, 0] / maps[:, 1, 1]
    assert 0.5 - 1e-5 <= ratio.min() < 0.55
    assert 1.9 < ratio.max() <= 2 + 1e-5


def test_a_smaller_output_is_a_window_that_reaches_every_place():
    y, x = np.mgrid[0:8, 0:8].astype(np.uint8)
    images = np.repeat(np.stack([y, x], -1)[None], 300, 0)  # each pixel says where it came from
    out = np.asarray(augment(jax.random.key(0), images, Augmentation(), side=6))
    assert out.shape == (300, 6, 6, 2)
    starts = out[:, 0, 0]
    steps = np.stack(np.mgrid[0:6, 0:6], -1)
    np.testing.assert_allclose(out, starts[:, None, None] + steps, atol=1e-4)
    assert starts.min() < 0.1
    assert starts.max() > 1.9
    assert {tuple(start) for start in np.rint(starts).astype(int)} == {(y, x) for y in range(3) for x in range(3)}
    assert starts.min() >= 0
    assert starts.max() <= 2 + 1e-5


def test_each_image_draws_its_own_and_the_same_key_the_same():
    images = np.repeat(random_images(1, 12, 1), 6, 0)
    how = Augmentation(flip=True, rotate=10.0, shift=0.1, brightness=0.2, contrast=0.2, erase=0.5)
    first, again = (np.asarray(augment(jax.random.key(3), images, how)) for _ in range(2))
    other = np.asarray(augment(jax.random.key(4), images, how))
    np.testing.assert_array_equal(first, again)
    assert len({image.tobytes() for image in (*first, *other)}) == 12


def test_brightness_adds_and_contrast_stretches_around_the_mean():
    images = np.clip(random_images(300, 4, 1), 100, 150).astype(np.uint8)
    added = np.asarray(augment(jax.random.key(5), images, Augmentation(brightness=0.2))) - images
    np.testing.assert_allclose(added, np.broadcast_to(added[:, :1, :1], added.shape), atol=1e-4)
    assert 48 < added.max() <= 51.001
    assert -51.001 <= added.min() < -48
    stretched = np.asarray(augment(jax.random.key(6), images, Augmentation(contrast=0.3)))
    mean = images.mean((1, 2, 3))
    np.testing.assert_allclose(stretched.mean((1, 2, 3)), mean, atol=1e-3)
    factor = stretched.std((1, 2, 3)) / images.std((1, 2, 3))
    assert 0.7 - 1e-4 <= factor.min() < 0.72
    assert 1.28 < factor.max() <= 1.3 + 1e-4


def test_light_stays_within_0_and_255():
    out = augment(jax.random.key(0), random_images(50), Augmentation(brightness=0.9, contrast=0.9))
    assert float(out.min()) == 0.0
    assert float(out.max()) == 255.0


def test_erasing_puts_the_mean_in_a_rectangle_of_the_images_chosen():
    images = random_images(400, 20, 1)
    out = np.asarray(augment(jax.random.key(7), images, Augmentation(erase=0.5, erase_area=0.3)))
    changed = (out != images).any(-1)
    hit = changed.any((1, 2))
    assert 160 < hit.sum() < 240
    for image, after, where in zip(images[hit], out[hit], changed[hit], strict=True):
        rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
        box = after[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        np.testing.assert_allclose(box, image.mean(), rtol=1e-5)
    shares = changed[hit].mean((1, 2))
    assert shares.max() <= 0.3 + 0.1  # rounding to whole pixels adds at most one row and one column
    assert abs(shares.mean() - 0.16) < 0.02


def test_every_field_of_the_configuration_is_a_range_of_augmentation():
    fields = {field.name: field.default for field in dataclasses.fields(Augmentation)}
    assert default_config().augment.to_dict() == fields
