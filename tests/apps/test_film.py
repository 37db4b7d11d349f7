from fractions import Fraction

import numpy as np
import pytest

from fer_jax.apps.film import FilmWriter, open_film

av = pytest.importorskip('av', reason='the extra `video`')


def frame(index, height=48, width=64):
    """Grey, brighter from frame to frame, red in the left upper quarter."""
    image = np.full((height, width, 3), 20 + 5 * index, np.uint8)
    image[: height // 2, : width // 2] = (200, 20, 20)
    return image


def write(path, times=tuple(index / 10 for index in range(12)), shape=(48, 64), rate=10):
    with FilmWriter(path, Fraction(rate)) as film:
        for index, time in enumerate(times):
            film.add(time, frame(index, *shape))
    return path


def read(path):
    with open_film(path) as film:
        return film, list(film.frames())


def test_what_is_written_comes_back(tmp_path):
    film, frames = read(write(tmp_path / 'deep' / 'film.mp4'))
    assert film.rate == 10 and film.count == 12
    assert [index for index, _, _ in frames] == list(range(12))
    np.testing.assert_allclose([time for _, time, _ in frames], np.arange(12) / 10, atol=1e-3)
    for index, _, image in frames:
        assert image.shape == (48, 64, 3) and abs(image[40, 50].mean() - (20 + 5 * index)) < 6
        assert image[10, 10, 0] > 150 > 90 > image[10, 10, 1]
    assert [path.name for path in (tmp_path / 'deep').iterdir()] == ['film.mp4']


def test_uneven_times_and_odd_sides(tmp_path):
    times = (0, 0.1, 0.5, 0.55, 2)
    _, frames = read(write(tmp_path / 'film.mp4', times, (49, 65)))
    np.testing.assert_allclose([time for _, time, _ in frames], times, atol=1e-3)
    assert frames[0][2].shape == (48, 64, 3)


@pytest.mark.parametrize(('degrees', 'corner'), [(90, (-1, 0)), (-90, (0, -1)), (180, (-1, -1))])
def test_films_are_turned_upright(tmp_path, degrees, corner):
    """Turned to the left by 90 degrees, what was in the left upper corner comes to lie in the left lower one."""
    path = tmp_path / 'turned.mp4'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        stream.set_display_rotation(degrees)
        for index in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame(index), format='rgb24')))
        container.mux(stream.encode())
    _, frames = read(path)
    image = frames[0][2]
    assert image.shape == ((48, 64, 3) if degrees == 180 else (64, 48, 3))
    red = [(row, column) for row in (0, -1) for column in (0, -1) if image[row, column, 0] > 120]
    assert red == [corner]


def test_nothing_is_left_of_a_film_that_was_not_finished(tmp_path):
    with pytest.raises(RuntimeError), FilmWriter(tmp_path / 'film.mp4', Fraction(10)) as film:
        film.add(0.0, frame(0))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    'content', [b'', b'no film', b'#EXTM3U\n#EXTINF:1,\n/etc/hostname\n', b'ffconcat version 1.0\nfile /etc/hostname\n']
)
def test_what_is_no_film_is_refused(tmp_path, content):
    path = tmp_path / 'film.mp4'
    path.write_bytes(content)
    with pytest.raises(ValueError, match='not a film'), open_film(path):
        pass


def test_a_film_cut_short_is_refused(tmp_path):
    path = write(tmp_path / 'film.mp4')
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match='film'):
        read(path)


def test_sound_alone_is_no_film(tmp_path):
    path = tmp_path / 'sound.mp4'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('aac', rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format='fltp', layout='mono')
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match='holds no pictures'), open_film(path):
        pass
