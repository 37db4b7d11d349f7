import jax
import numpy as np
import pytest
import skimage.data
from PIL import Image

from fer_jax.faces.mtcnn import Mtcnn, Settings


def paste(face, shape, places):
    picture = np.full((*shape, 3), 90, np.uint8)
    for top, left in places:
        picture[top : top + face.shape[0], left : left + face.shape[1]] = face
    return picture


def errors(faces, points, box=None):
    """The largest distance of a point of the best face, in shares of the distance between the eyes."""
    return np.linalg.norm(faces[0].points - points, axis=1).max() / np.linalg.norm(points[0] - points[1])


def test_finds_what_the_package_finds(mtcnn, astronaut, known):
    box, points = known
    (face,) = mtcnn.detect([astronaut])[0]
    assert errors([face], points) < 0.05
    corners = np.concatenate([face.box[:2], face.box[:2] + face.box[2:]])
    assert np.abs(corners - box).max() < 5 and face.score > 0.99


@pytest.mark.parametrize('side', [80, 256, 1000])
def test_finds_the_face_at_every_size(mtcnn, astronaut, known, resized, side):
    faces = mtcnn.detect([resized(astronaut, side, side)])[0]
    assert errors(faces, known[1] * side / 512) < 0.12


@pytest.mark.parametrize('angle', [-60, -45, -30, -15, 15, 30, 45, 60])
def test_finds_the_turned_face(mtcnn, astronaut, known, angle):
    faces = mtcnn.detect([np.asarray(Image.fromarray(astronaut).rotate(angle))])[0]
    radians = np.deg2rad(angle)
    turn = np.array([(np.cos(radians), np.sin(radians)), (-np.sin(radians), np.cos(radians))])
    assert errors(faces, (known[1] - 256) @ turn.T + 256) < 0.08


def test_points_of_the_mirror_image_are_the_mirrored_points(mtcnn, astronaut):
    """Within half a per cent of the face: pixels are counted from their edges, without a shift to one side."""
    face, mirrored = (faces[0] for faces in mtcnn.detect([astronaut, astronaut[:, ::-1]]))
    back = mirrored.points[[1, 0, 2, 4, 3]] * (-1, 1) + (512, 0)
    assert np.abs((face.points - back).mean(0)).max() < 0.01 * face.box[2]


def test_many_pictures_at_once_are_as_one_by_one(mtcnn, astronaut, resized):
    pictures = [
        resized(astronaut, 200, 150),
        np.zeros((64, 64), np.uint8),
        resized(astronaut, 90, 120),
        np.ascontiguousarray(astronaut[:200, 120:320, 1]),
        np.ascontiguousarray(astronaut[20:300, 100:400]),
    ]
    together, alone = mtcnn.detect(pictures), [mtcnn.detect([picture])[0] for picture in pictures]
    assert [len(faces) for faces in together] == [1, 0, 1, 1, 1]
    for some, same in zip(together, alone, strict=True):
        for face, twin in zip(some, same, strict=True):
            np.testing.assert_allclose(face.points, twin.points, atol=1e-2)
            assert face.score == pytest.approx(twin.score, abs=1e-4)


def test_a_new_size_compiles_nothing(mtcnn, astronaut, resized):
    mtcnn.warm_up()
    mtcnn.detect([astronaut])
    traced, counting = [], True

    def count(event, *_, **__):
        if counting and 'compile' in event:
            traced.append(event)

    jax.monitoring.register_event_duration_secs_listener(count)
    for width, height in ((333, 217), (97, 411), (640, 480)):
        assert len(mtcnn.detect([resized(astronaut, width, height)] * 2)) == 2
    assert traced == []
    jax.jit(lambda x: x * 3 + 1)(np.ones(7))
    counting = False
    assert traced, 'nothing was counted even for a new program: the test showed nothing'


def test_grey_is_seen_as_its_three_equal_channels(mtcnn, astronaut):
    grey = np.ascontiguousarray(astronaut[:256, 100:400, 1])
    (face,), (flat,), (full,) = mtcnn.detect([grey[..., None], grey, np.repeat(grey[..., None], 3, 2)])
    np.testing.assert_array_equal(face.points, full.points)
    np.testing.assert_array_equal(face.points, flat.points)


def test_forty_faces(mtcnn, astronaut, resized):
    face = resized(np.ascontiguousarray(astronaut[20:220, 120:320]), 72, 72)
    places = [(10 + 80 * row, 10 + 80 * column) for row in range(5) for column in range(8)]
    faces = mtcnn.detect([paste(face, (420, 660), places)])[0]
    assert len(faces) == 40
    found = {(int(f.points[2, 1] - 10) // 80, int(f.points[2, 0] - 10) // 80) for f in faces}
    assert len(found) == 40


def test_a_face_of_twenty_pixels(mtcnn, astronaut, resized):
    side = 96  # the face is 21 pixels high
    picture = paste(resized(astronaut, side, side), (300, 400), [(150, 200)])
    (face,) = mtcnn.detect([picture])[0]
    assert 14 < face.box[3] < 24 and abs(face.points[2, 0] - (200 + 224.7 * side / 512)) < 2


def test_fifty_megapixels(mtcnn, astronaut, known):
    picture = np.asarray(Image.fromarray(astronaut).resize((7200, 7200), Image.Resampling.NEAREST))
    faces = mtcnn.detect([picture])[0]
    assert errors(faces, known[1] * 7200 / 512) < 0.1


@pytest.mark.parametrize('shape', [(1, 1), (3, 700), (700, 3, 1), (12, 12, 3)])
def test_tiny_pictures_have_no_face(mtcnn, shape):
    assert mtcnn.detect([np.full(shape, 200, np.uint8)]) == [[]]


def test_nothing_in_nothing_out(mtcnn):
    assert mtcnn.detect([]) == []


def test_textures_have_no_face(mtcnn):
    pictures = [getattr(skimage.data, name)() for name in ('brick', 'grass', 'text', 'coins', 'page')]
    assert mtcnn.detect(pictures) == [[]] * 5


def test_hundred_small_faces_and_hundred_others(mtcnn):
    """scikit-image's part of Labeled Faces in the Wild: 100 faces of 25 pixels, 100 pieces of background."""
    pictures = (skimage.data.lfw_subset() * 255).astype(np.uint8)
    found = [bool(faces) for faces in mtcnn.detect(list(pictures))]
    assert sum(found[:100]) >= 99 and sum(found[100:]) == 0


def test_settings_count(package, astronaut, resized):
    small = resized(astronaut, 128, 128)  # the face is 27 pixels high
    assert Mtcnn(Settings(min_face=60)).detect([small]) == [[]]
    assert len(Mtcnn(Settings(min_face=60)).detect([small], Settings(min_face=20))[0]) == 1
