import numpy as np
import pytest

from fer_jax.faces.portraits import FIRST


@pytest.mark.parametrize('turn', [1, -1])
def test_a_lying_face_is_found_where_it_lies(portraits, mtcnn, astronaut, turn):
    face = mtcnn.detect([astronaut])[0][0]
    lying = portraits.detect([np.ascontiguousarray(np.rot90(astronaut, turn))])[0][0]
    x, y = face.points.T
    expected = np.stack([y, 512 - x] if turn == 1 else [512 - y, x], 1)
    np.testing.assert_allclose(lying.points, expected, atol=4)
    middle = lying.box[:2] + lying.box[2:] / 2
    assert np.abs(middle - expected.mean(0)).max() < 15
    assert lying.box[2] > 95 > lying.box[3]  # higher than wide, lying


def test_a_face_that_fills_the_picture_is_found_by_the_last_look(portraits, mtcnn, astronaut, known, resized):
    """Cut from the eyes to the mouth: neither photographs' settings nor the first look find it."""
    tight = resized(np.ascontiguousarray(astronaut[98:146, 198:252, 1]), 72, 72)
    assert mtcnn.detect([tight]) == mtcnn.detect([tight], FIRST) == [[]]
    (face,) = portraits.detect([tight])[0]
    expected = (known[1] - (198, 98)) * 72 / (54, 48)
    assert np.linalg.norm(face.points - expected, axis=1).max() < 0.2 * np.linalg.norm(expected[0] - expected[1])


def test_none_stays_none(portraits):
    blank = np.full((48, 48, 1), 255, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8)
    assert portraits.detect([blank, noise]) == [[], []]
