import numpy as np
import pytest
from PIL import ImageColor

from fer_jax.apps.drawing import LARGEST, SMALLEST, draw_faces, draw_saliency
from fer_jax.apps.recognized import RecognizedFace, read_emotion
from fer_jax.data.dataset import EMOTIONS
from fer_jax.faces.face import TEMPLATE
from fer_jax.reports.timeline import class_colours

COLOURS = {name: ImageColor.getrgb(colour) for name, colour in class_colours(EMOTIONS).items()}
GREY = np.full((600, 800, 3), 90, np.uint8)


def a_face(box=(200, 150, 150, 180), emotion='happiness', share=0.9, names=EMOTIONS, **more):
    rest = (1 - share) / (len(names) - 1)
    reading = read_emotion(np.array([share if name == emotion else rest for name in names]), names, 0.5)
    box = np.array(box, np.float32)
    points = box[:2] + TEMPLATE * box[2:]
    more = {'seen': GREY[:24, :24], **more}
    return RecognizedFace(box=box, points=points, score=0.99, logits=np.zeros((1, 8)), **vars(reading), **more)


def count(pixels, colour):
    return int((np.abs(pixels.astype(int) - colour).max(-1) < 10).sum())


def test_box_title_and_bars_stand_where_they_should():
    drawn = draw_faces(GREY, [a_face()])
    assert drawn.shape == (720, 960, 3)
    orange = np.abs(drawn.astype(int) - COLOURS['happiness']).max(-1) < 10
    box = np.array([200, 150, 350, 330]) * 1.2
    rows, columns = np.nonzero(orange[:, : int(box[2]) + 1])
    assert abs(columns.min() - box[0]) < 3 and abs(rows.max() - box[3]) < 3
    assert orange[int(box[1]) - 20 : int(box[1]), int(box[0]) : int(box[0]) + 90].mean() > 0.6  # the title
    panel = orange[:, int(box[2]) + 8 :]
    assert panel.sum() > 200  # the long bar of happiness, beside the box
    assert 0 < count(drawn[:, int(box[2]) + 8 :], COLOURS['anger']) < panel.sum() / 10


def test_a_bar_is_as_long_as_its_share():
    lengths = []
    for share in (0.4, 0.8):
        drawn = draw_faces(GREY, [a_face(share=share)])[:, 440:]
        found = np.nonzero(np.abs(drawn.astype(int) - COLOURS['happiness']).max(-1) < 10)[1]
        lengths.append(np.ptp(found) + 1)
    assert lengths[1] / lengths[0] == pytest.approx(2, rel=0.06)


def test_unsure_faces_are_grey_and_without_faces_nothing_is_drawn():
    unsure = draw_faces(GREY, [a_face(share=0.3)])
    assert count(unsure[:, :425], COLOURS['happiness']) == 0 and count(unsure, (95, 99, 104)) > 1000
    assert (draw_faces(GREY, []) == 90).all()


@pytest.mark.parametrize('emotion', EMOTIONS)
def test_every_emotion_is_drawn_with_its_emoji_or_only_in_letters(emotion):
    """The font has no nauseated face."""
    drawn = draw_faces(GREY, [a_face(emotion=emotion)])
    title = drawn[155:180, 235:265].astype(int)
    assert count(title, COLOURS[emotion]) > 50 and count(title, (255, 255, 255)) > 5


def test_forty_faces_each_have_their_bars():
    places = [(20 + 95 * column, 20 + 110 * row, 60, 75) for row in range(5) for column in range(8)]
    drawn = draw_faces(GREY, [a_face(place, emotion='surprise') for place in places])
    for left, top, width, height in np.array(places) * 1.2:
        inside = drawn[int(top + 0.7 * height) : int(top + height), int(left) + 4 : int(left + width) - 3]
        assert count(inside, COLOURS['surprise']) > 30


@pytest.mark.parametrize('shape', [(20, 24), (20, 24, 1), (48, 48, 3), (3000, 2000, 3), (2, 5000, 3)])
def test_pictures_of_any_size_are_drawn_legibly(shape):
    face = a_face((shape[1] / 4, shape[0] / 4, shape[1] / 2, shape[0] / 2))
    drawn = draw_faces(np.full(shape, 90, np.uint8), [face])
    assert SMALLEST <= max(drawn.shape[:2]) <= LARGEST and drawn.shape[2] == 3
    assert drawn.std() > 0


def test_faces_over_the_edge_and_other_class_names_are_drawn():
    names = ('left', 'right $x', 'up')
    drawn = draw_faces(
        GREY, [a_face((-80, -90, 150, 150), 'up', names=names), a_face((750, 540, 150, 150), 'left', names=names)]
    )
    assert drawn.std() > 0


def test_labels_are_drawn():
    assert (draw_faces(GREY, [a_face()], ['7:']) != draw_faces(GREY, [a_face()])).any()


def test_saliency_glows_where_it_is_high():
    heat = np.zeros((24, 24), np.float32)
    heat[:12, :12] = 1
    drawn = draw_saliency(a_face(seen=GREY[:24, :24, :1], saliency=heat)).astype(int)
    left, right = drawn[:, :240], drawn[:, 248:]
    assert (left == 90).all() and right[60, 60].sum() > right[180, 180].sum() + 200
