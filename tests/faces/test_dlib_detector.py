import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.faces.detector import make_detector

dlib = pytest.importorskip('dlib', reason='dlib is an extra')


@pytest.fixture(scope='module')
def face(astronaut):
    (box,) = dlib.get_frontal_face_detector()(astronaut, 0)
    return box


def train(path, image, box, count):
    """A predictor of `count` points that knows one face: point k lies k / 100 of the box along its diagonal."""
    places = [
        dlib.point(box.left() + k * box.width() // 100, box.top() + k * box.height() // 100) for k in range(count)
    ]
    options = dlib.shape_predictor_training_options()
    options.oversampling_amount, options.cascade_depth, options.num_trees_per_cascade_level = 5, 3, 20
    options.num_threads = 1
    dlib.train_shape_predictor([image], [[dlib.full_object_detection(box, places)]], options).save(str(path))
    return path


@pytest.fixture(scope='module')
def landmarks(tmp_path_factory, astronaut, face):
    return train(tmp_path_factory.mktemp('dlib') / 'points68.dat', np.array(astronaut), face, 68)


def test_finds_the_face_and_takes_five_of_its_68_points(astronaut, face, landmarks):
    (found,) = make_detector('dlib', landmarks=landmarks).detect([astronaut])[0]
    assert np.abs(found.box - [face.left(), face.top(), face.width(), face.height()]).max() < 12
    along = (found.points - found.box[:2]) / found.box[2:]
    # The means of points 36 to 41 and 42 to 47, and points 30, 48 and 54.
    np.testing.assert_allclose(along, np.array([0.385, 0.445, 0.30, 0.48, 0.54])[:, None].repeat(2, 1), atol=0.03)
    assert found.score > 0


def test_small_pictures_are_enlarged_and_places_are_in_their_pixels(astronaut, face, landmarks, resized):
    small = resized(np.ascontiguousarray(astronaut[:256, 90:346]), 64, 64)  # the face is 22 pixels wide
    found, *others = make_detector('dlib', portraits=True, landmarks=landmarks).detect([small])[0]
    expected = (face.left() - 90) / 4, face.top() / 4, face.width() / 4, face.height() / 4
    assert np.abs(found.box - expected).max() < 4
    assert all(found.score > other.score for other in others)


def test_no_face_none_found(landmarks):
    assert make_detector('dlib', landmarks=landmarks).detect([np.zeros((60, 60), np.uint8)]) == [[]]


def test_the_wrong_file_is_refused(tmp_path, astronaut, face):
    with pytest.raises(UserError, match='--align-landmarks=PATH'):
        make_detector('dlib')
    with pytest.raises(UserError, match='does not exist'):
        make_detector('dlib', landmarks=tmp_path / 'no.dat')
    (tmp_path / 'text.dat').write_text('no predictor')
    with pytest.raises(UserError, match=r'text\.dat is no shape predictor'):
        make_detector('dlib', landmarks=tmp_path / 'text.dat')
    five = train(tmp_path / 'five.dat', np.array(astronaut), face, 5)
    with pytest.raises(UserError, match='predicts 5 points; the predictor of 68'):
        make_detector('dlib', landmarks=five)
