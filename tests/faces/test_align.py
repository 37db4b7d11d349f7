import numpy as np
import pytest
import skimage.transform
from PIL import Image

from fer_jax.errors import UserError
from fer_jax.faces.align import TEMPLATE, cut_square, main_face, make_aligner, template, warp
from fer_jax.faces.face import Face
from fer_jax.faces.pyramid import Octaves


class Fixed:
    """A detector that always gives the same faces."""

    def __init__(self, faces):
        self.faces = faces

    def detect(self, images):
        return [self.faces for _ in images]


def a_face(box=(10, 10, 20, 20), points=None, score=0.9):
    points = TEMPLATE * 40 + 5 if points is None else points
    return Face(np.array(box, np.float32), np.array(points, np.float32), score)


def waves(height, width):
    y, x = np.mgrid[:height, :width]
    return (127 + 60 * np.sin(x / 9) + 60 * np.cos(y / 13 + x / 31)).astype(np.uint8)


def points_at(places, angle=0.0, scale=1.0, shift=(0, 0)):
    turn = scale * np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    return places @ turn.T + shift


@pytest.mark.parametrize(('angle', 'scale'), [(0.0, 1.0), (0.4, 1.3), (-1.1, 0.8)])
def test_warp_equals_scikit_images_where_nothing_shrinks(angle, scale):
    picture, size = waves(200, 240), 64
    points = points_at(template(size), angle, scale / 1.35, (110, 90))
    ours = warp(picture, points, size)[..., 0]
    # scikit-image counts from the middles of pixels, we from their edges.
    move = skimage.transform.estimate_transform('similarity', template(size) - 0.5, points - 0.5)
    theirs = skimage.transform.warp(picture, move, output_shape=(size, size), order=3, preserve_range=True)
    difference = np.abs(ours - theirs)  # theirs goes by splines, ours is truncated to whole numbers
    assert difference.max() < 3 and difference.mean() < 0.7


def test_the_points_come_to_lie_where_the_template_has_them():
    size = 96
    points = points_at(template(size), 0.5, 2.1, (140, 60))
    for index, (x, y) in enumerate(points):
        rows, columns = np.mgrid[:400, :400] + 0.5
        dot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 40) * 255
        aligned = warp(dot.astype(np.uint8), points, size)[..., 0].astype(float)
        place = [np.sum(aligned * axis) / aligned.sum() for axis in np.mgrid[:size, :size][::-1] + 0.5]
        np.testing.assert_allclose(place, template(size)[index], atol=0.15)


@pytest.mark.parametrize('found', (True, False))
def test_the_move_takes_places_of_the_picture_to_those_of_the_aligned_one(found):
    size, face = 48, a_face(points=points_at(TEMPLATE, 0.3, 60, (110, 90)))
    (aligned,) = make_aligner(Fixed([face] if found else []), size)([np.zeros((200, 240), np.uint8)])
    places = np.array([face.points[0], face.points[2], (0, 0), (240, 200)])
    moved = places @ aligned.move[:, :2].T + aligned.move[:, 2]
    if found:
        np.testing.assert_allclose(moved[:2], template(size)[[0, 2]], atol=1e-3)
    else:
        np.testing.assert_allclose(moved[2:], [(0, 0), (size, size)])


def test_the_square_about_a_box_is_upright_and_a_tenth_larger():
    picture = waves(90, 100)
    cut = cut_square(Octaves(picture), np.array([30, 40, 20, 10], np.float32), 22)
    np.testing.assert_allclose(cut[..., 0].astype(int), picture[34:56, 29:51], atol=1)
    colour = np.repeat(picture[..., None], 3, 2)
    over_the_edge = cut_square(colour, np.array([-10, 40, 20, 20], np.float32), 22)
    np.testing.assert_allclose(over_the_edge[:, 11:].astype(int), colour[39:61, :11], atol=1)
    assert np.ptp(over_the_edge[:, :9].astype(int), axis=1).max() <= 1


def test_margin_shows_more_on_every_side():
    np.testing.assert_allclose(template(100, 0.25), 100 * (TEMPLATE + 0.25) / 1.5)
    assert template(60)[2] == pytest.approx([30, 35.52])  # the nose in the middle, 59.2 % down


@pytest.mark.parametrize('scale', [3.0, 7.5])
def test_shrinking_averages(scale):
    checks = (np.indices((800, 800)).sum(0) % 2 * 255).astype(np.uint8)
    aligned = warp(checks, points_at(template(64), 0.3, scale, (200, 100)), 64)
    assert np.abs(aligned.astype(int) - 127).max() < 14
    disc = ((np.indices((800, 800)) - 400) ** 2).sum(0) < (20 * scale) ** 2
    small = warp((disc * 255).astype(np.uint8), points_at(template(64), 0, scale, (400 - 32 * scale,) * 2), 64)
    assert (small > 127).sum() == pytest.approx(np.pi * 20**2, rel=0.06)


def test_outside_the_picture_its_edge_goes_on():
    picture = np.repeat(np.arange(40, 240, 5, dtype=np.uint8)[:, None], 40, 1)
    aligned = warp(picture, template(48) / 2 + (-20, 8), 48)[..., 0]  # reaches 20 pixels over the left edge
    assert (aligned[:, :30] == aligned[:, :1]).all()
    assert np.ptp(aligned[:, 0]) > 100


@pytest.mark.parametrize(('shape', 'channels'), [((60, 70), 1), ((60, 70, 1), 1), ((60, 70, 3), 3)])
def test_channels_are_kept(shape, channels):
    picture = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    for faces in ([], [a_face()]):
        (face,) = make_aligner(Fixed(faces), size=32)([picture])
        assert face.image.shape == (32, 32, channels) and face.image.dtype == np.uint8


def test_no_face_is_said_and_the_picture_kept_or_not():
    picture = waves(50, 80)
    (kept,) = make_aligner(Fixed([]), size=40)([picture])
    assert not kept.found and kept.score == 0 and np.isnan(kept.box).all() and np.isnan(kept.points).all()
    smooth = np.asarray(Image.fromarray(picture).resize((40, 40)))
    assert np.abs(kept.image[..., 0].astype(int) - smooth).max() < 12
    (rejected,) = make_aligner(Fixed([]), missing='reject')([picture])
    assert rejected.image is None and not rejected.found


def test_the_main_face_is_large_central_and_sure():
    large, central = a_face((0, 0, 40, 40)), a_face((45, 45, 20, 20))
    assert main_face([central, large], (100, 100)) is central  # 1600 - 2 * 1800 < 400 - 2 * 50
    assert main_face([central, large], (40, 40)) is large
    doubtful = a_face((30, 30, 40, 40), score=0.55)
    assert main_face([a_face((0, 0, 9, 9)), doubtful], (100, 100)) is not doubtful
    (face,) = make_aligner(Fixed([central, large]))([waves(100, 100)])
    assert face.box.tolist() == [45, 45, 20, 20]


def test_what_cannot_be_is_said():
    with pytest.raises(UserError, match='keep or reject'):
        make_aligner(Fixed([]), missing='drop')
    with pytest.raises(UserError, match="'mtcn' is no face detector; did you mean mtcnn"):
        make_aligner('mtcn')
    with pytest.raises(UserError, match='dlib'):
        make_aligner('mtcnn', landmarks='x.dat')


@pytest.mark.parametrize('angle', [-35, 20])
def test_the_turned_face_comes_out_upright(portraits, astronaut, known, angle):
    turned = np.asarray(Image.fromarray(astronaut).rotate(angle, Image.Resampling.BICUBIC))
    straight, back = (face.image for face in make_aligner(portraits, size=64)([astronaut, turned]))
    before = np.corrcoef(astronaut[60:175, 170:285].ravel(), turned[60:175, 170:285].ravel())[0, 1]
    after = np.corrcoef(straight.ravel(), back.ravel())[0, 1]
    assert after > 0.93 and before < 0.6
