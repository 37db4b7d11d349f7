"""Screens of a real X server."""

import numpy as np
import pytest
from PIL import Image

from fer_jax.apps.screen import without
from fer_jax.apps.source import open_source
from fer_jax.errors import UserError
from tests import screens

needs_x = pytest.mark.skipif(bool(screens.MISSING), reason=screens.MISSING)


@pytest.fixture(scope='module')
def shown(tmp_path_factory):
    """A display of 400x300 with noise at 50,20, and the noise."""
    noise = np.random.default_rng(0).integers(0, 256, (80, 120, 3)).astype(np.uint8)
    path = tmp_path_factory.mktemp('noise') / 'noise.png'
    Image.fromarray(noise).save(path)
    with screens.x_server(400, 300) as display, screens.painted(display, path, '120x80+50+20'):
        yield display, noise


@needs_x
@pytest.mark.parametrize('word', ['screen', 'screen:0', 'screen:1', 'screen:40,10,200,100'])
def test_what_is_read_is_what_is_shown(shown, monkeypatch, word):
    display, noise = shown
    monkeypatch.setenv('DISPLAY', display)
    with open_source(word) as source:
        number, _, image = source.newest(1)
        assert number == 0 and source.newest(1)[0] == 1
    region = word.count(',')
    assert source.area == ((40, 10, 200, 100) if region else (0, 0, 400, 300))
    assert image.shape == ((100, 200, 3) if region else (300, 400, 3)) and image.dtype == np.uint8
    left, top = (10, 10) if region else (50, 20)
    np.testing.assert_array_equal(image[top : top + 80, left : left + 120], noise)
    assert image.sum() == noise.sum()  # all else is black


@needs_x
@pytest.mark.parametrize(
    'place', ['2', '-1', '1,2', 'all', '0,0,500,300', '-1,0,9,9', '390,0,20,20', '0,0,0,9', '1,2,3,4,5']
)
def test_what_is_not_there_is_said(shown, monkeypatch, place):
    monkeypatch.setenv('DISPLAY', shown[0])
    with pytest.raises(UserError, match='there are screen:1, screen:0') as caught:
        open_source(f'screen:{place}')
    assert str(caught.value).endswith('within 0,0,400,300') and f'screen:{place} is not there' in str(caught.value)


def test_without_a_screen_it_says_what_is_needed(monkeypatch):
    pytest.importorskip('mss', reason='the extra `screen`')
    monkeypatch.setenv('DISPLAY', ':4094')
    with pytest.raises(UserError, match='no screen can be read here: .* and DISPLAY'):
        open_source('screen')


def test_a_window_is_left_out_where_it_lies_in_the_area():
    image = np.full((100, 200, 3), 7, np.uint8)
    area = (50, 20, 200, 100)
    assert without(image, area, None) is image
    grey = without(image, area, (40, 100, 30, 500)) == 128
    assert grey[80:, :20].all() and grey.sum() == 20 * 20 * 3 and (image == 7).all()
    for window in ((0, 0, 50, 20), (250, 0, 99, 999), (60, 120, 9, 9)):
        assert (without(image, area, window) == 7).all()
