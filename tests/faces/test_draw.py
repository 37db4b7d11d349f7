import numpy as np
from PIL import Image

from fer_jax.faces.align import AlignedFace
from fer_jax.faces.draw import draw_alignment

GREEN, ORANGE, RED = (0, 158, 115), (230, 159, 0), (213, 94, 0)


def near(pixels, colour):
    return (np.abs(pixels.astype(int) - colour).max(-1) < 12).sum()


def test_sheet_shows_boxes_points_and_who_is_missing(tmp_path):
    picture = np.full((48, 48, 1), 128, np.uint8)
    points = np.array([(15, 20), (33, 20), (24, 29), (17, 38), (31, 38)], np.float32)
    found = AlignedFace(np.full((48, 48, 1), 60, np.uint8), True, np.array([8, 4, 30, 40]), points, 0.98, np.eye(2, 3))
    missing = AlignedFace(picture, False, np.full(4, np.nan), np.full((5, 2), np.nan), 0.0, np.eye(2, 3))
    rejected = AlignedFace(None, False, np.full(4, np.nan), np.full((5, 2), np.nan), 0.0, np.eye(2, 3))

    def drawn(pairs):
        return np.asarray(Image.open(draw_alignment(pairs, tmp_path / 'sheet.png')).convert('RGB'))

    one, nine = drawn([(picture, found)]), drawn([(picture, found)] * 9)
    assert near(one, GREEN) > 200 and near(one, ORANGE) > 100 and near(one, RED) == 0
    assert near(one, (60, 60, 60)) > 20_000
    assert nine.shape[0] > 1.7 * one.shape[0] and nine.shape[1] > 7 * one.shape[1]
    none = drawn([(picture, missing), (np.repeat(picture, 3, 2), rejected)])
    assert near(none, GREEN) == near(none, ORANGE) == 0 and near(none, RED) > 3
