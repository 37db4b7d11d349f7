"""Cameras, stood in for by films that play over and over and by FFmpeg's own test pictures."""

import time
from fractions import Fraction

import numpy as np
import pytest

from fer_jax.apps import camera
from fer_jax.apps.film import FilmWriter
from fer_jax.apps.source import SourceEnded, is_live, open_source
from fer_jax.errors import UserError

pytest.importorskip('av', reason='the extra `video`')
RATE, LENGTH = 20, 10


@pytest.fixture
def film(tmp_path):
    """Half a second, brighter from frame to frame."""
    path = tmp_path / 'film.mp4'
    with FilmWriter(path, Fraction(RATE)) as writer:
        for index in range(LENGTH):
            writer.add(index / RATE, np.full((48, 64, 3), 20 + 20 * index, np.uint8))
    return path


def test_the_newest_picture_is_given_however_slowly_one_looks(film):
    with open_source(f'webcam:{film}') as source:
        assert source.name == 'webcam' and source.area is None
        seen = []
        for _ in range(4):
            time.sleep(0.33)
            number, came, image = source.newest(1)
            assert time.monotonic() - came < 0.25
            seen.append(number)
            assert abs(image.mean() - (20 + 20 * (number % LENGTH))) < 6  # again and again, in order
        assert all(later - sooner >= 4 for sooner, later in zip(seen, seen[1:], strict=False)), seen


def test_no_picture_is_given_twice(film):
    with open_source(f'webcam:{film}') as source:
        numbers = [source.newest(1)[0] for _ in range(12)]
        assert numbers == sorted(set(numbers))
        assert any(source.newest(0) is None for _ in range(20))  # between two of them, however busy the machine is


def test_a_camera_that_goes_away_says_so(film):
    with open_source(f'webcam:{film}') as source:
        assert source.newest(1)
        film.unlink()
        with pytest.raises(SourceEnded, match='the camera ended: not a film: No such file'):
            for _ in range(100):
                source.newest(0.1)


def test_a_camera_that_sends_nothing_is_given_up(film, monkeypatch):
    monkeypatch.setattr(camera, '_PATIENCE', 0.2)
    source = open_source(f'webcam:{film}')  # not begun: nothing comes
    assert source.newest(0.05) is None
    with pytest.raises(SourceEnded, match='sent nothing for 0 s'):
        source.newest(0.3)


def test_a_device_of_ffmpeg_is_read(monkeypatch):
    monkeypatch.setattr(camera, '_DEVICES', 'lavfi')  # its pictures come as fast as they are taken
    with open_source('webcam:smptebars=size=64x48:rate=30') as source:
        first, second = source.newest(5), source.newest(5)
    assert second[0] > first[0] and first[2].shape == (48, 64, 3) and first[2].dtype == np.uint8
    assert np.ptp(first[2][10, :, 0].astype(int)) > 100  # bars, and in colour
    np.testing.assert_array_equal(first[2], second[2])


def test_words_that_are_live():
    assert all(map(is_live, ('webcam', 'webcam:1', 'webcam:/dev/video2', 'screen', 'screen:0,0,9,9')))
    assert not any(map(is_live, ('./webcam', 'webcams', 'screen.png', 'a/screen:1', '')))


@pytest.mark.parametrize(
    ('word', 'message'),
    [
        ('webcam:', 'nothing follows the colon'),
        ('webcam:/dev/null', 'webcam:/dev/null is no camera'),
        ('webcam:/nowhere', '/nowhere does not exist; a number, a device such as /dev/video0 or a film'),
        (f'webcam:{__file__}', 'is neither a camera nor a film'),
    ],
)
def test_what_is_no_camera_is_said(word, message):
    with pytest.raises(UserError, match=message) as caught:
        open_source(word)
    assert '\n' not in str(caught.value)


def test_cameras_by_number(tmp_path, monkeypatch):
    monkeypatch.setattr(camera, 'Path', lambda place: tmp_path if place == '/dev' else None)
    with pytest.raises(UserError, match='no camera is connected: there is no /dev/video0'):
        open_source('webcam')
    for number in (2, 10):
        (tmp_path / f'video{number}').touch()
    with pytest.raises(UserError, match='there is no /dev/video1; there are webcam:2, webcam:10'):
        open_source('webcam:1')
    with pytest.raises(UserError, match='video2 is neither a camera'):  # the first; here an empty file
        open_source('webcam')
