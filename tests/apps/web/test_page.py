"""The page in a real Chromium: a picture by button, drop and paste, a fake camera, a screen; errors in words.

Faces are found by the real detector; what is read in them is made up, so that a test can tell whose words they are.
"""

import base64
import io
import json
import threading
import time

import numpy as np
import pytest
import skimage.data
from PIL import Image

from fer_jax.apps.recognized import RecognizedFace, read_emotion
from fer_jax.faces.mtcnn import Mtcnn
from tests import browsing
from tests.browsing import browsing as start
from tests.serving import serving

pytestmark = pytest.mark.skipif(bool(browsing.MISSING), reason=browsing.MISSING)
SHARES = np.array([0.25, 0.125, 0.625])
CARD = "return document.querySelector('#faces .bars') && document.querySelector('#faces').innerText"


class Finder:
    """The detector, and made-up probabilities; `wait` holds it up."""

    def __init__(self, class_names):
        self._detector, self._names = Mtcnn(), class_names
        self._detector.warm_up()
        self.go = threading.Event()
        self.go.set()

    def __call__(self, image):
        assert self.go.wait(30)
        (faces,) = self._detector.detect([image])
        reading = vars(read_emotion(SHARES, self._names, 0.5))
        return [RecognizedFace(**reading, **vars(face), logits=np.log(SHARES)[None], seen=None) for face in faces]


@pytest.fixture(scope='module')
def finder():
    return Finder(('anger', 'fear', 'happiness'))


@pytest.fixture(scope='module')
def server(finder):
    with serving(finder, limits={'size': 1_000_000, 'requests': 2}) as running:
        yield running


@pytest.fixture(scope='module')
def folder(tmp_path_factory, astronaut):
    """A photograph, what is none, a film for the fake camera, and a page to be shared."""
    place = tmp_path_factory.mktemp('page')
    (place / 'astronaut.jpg').write_bytes(astronaut)
    (place / 'drawing.jpg').write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    (place / 'large.png').write_bytes(bytes(1_000_001))
    Image.open(io.BytesIO(astronaut)).save(place / 'astronaut.tif')
    with (place / 'face.mjpeg').open('wb') as film:
        for shift in (*range(0, 40, 2), *range(40, 0, -2)):
            frame = Image.fromarray(skimage.data.astronaut()).crop((60 + shift, 0, 380 + shift, 240))
            frame.resize((640, 480)).save(film, 'JPEG', quality=90)
    (place / 'shared.html').write_text('<title>shared</title><body><img src="astronaut.jpg" width="480" height="480">')
    return place


@pytest.fixture(scope='module')
def window(folder):
    flags = (
        '--use-fake-ui-for-media-stream',
        '--use-fake-device-for-media-stream',
        f'--use-file-for-fake-video-capture={folder / "face.mjpeg"}',
    )
    with start(*flags, downloads=folder) as browser:
        yield browser


@pytest.fixture
def page(window, server):
    """The page, fresh; at the end it may have complained of nothing but the codes that were meant."""
    window.log()
    window.open(f'http://127.0.0.1:{server.port}/')
    yield window
    assert not [line for line in window.log() if 'the server responded with a status of' not in line]


def test_an_uploaded_picture_shows_its_bars(page, folder):
    assert page.text('#status') == 'Ready.' and not page.do("return document.querySelector('#error').offsetHeight")
    page.type('#file', folder / 'astronaut.jpg')
    card = page.wait(CARD)
    assert ' '.join(card.split()) == '😀 happiness face 1 63 % anger 25 % fear 13 % happiness 63 %'
    widths = page.do(
        "return [...document.querySelectorAll('.bars .fill')].map((bar) => bar.style.getPropertyValue('--share'))"
    )
    assert widths == ['0.25', '0.125', '0.625']
    assert page.text('#status').startswith('One face: happiness 63 %. Read in ')
    assert page.do("return document.querySelector('#picture').ariaLabel") == 'One face: happiness 63 %.'
    size = page.do("const c = document.querySelector('#picture'); return [c.width, c.height]")
    assert size == [960, 960]
    assert not page.do("return document.querySelector('#save-json').disabled")


def test_json_and_picture_are_saved(page, folder, server, astronaut):
    page.type('#file', folder / 'astronaut.jpg')
    page.wait(CARD)
    page.click('#save-json')
    page.click('#save-picture')
    names = ('astronaut.json', 'astronaut_faces.png')
    end = time.monotonic() + 20
    while not all((folder / name).exists() and (folder / name).stat().st_size for name in names):
        assert time.monotonic() < end
        time.sleep(0.1)
    said = json.loads((folder / 'astronaut.json').read_text(encoding='utf-8'))
    assert said == server.predict(astronaut).json | {'source': 'astronaut.jpg'}
    drawn = np.asarray(Image.open(folder / 'astronaut_faces.png').convert('RGB')).astype(int)
    left, top, width, height = np.array(said['faces'][0]['box']) * 960 / 512
    edge = drawn[int(top + height / 2), int(left - 2) : int(left + 3)]
    assert (abs(edge - [230, 159, 0]).sum(1) < 60).any()  # happiness is orange


def test_dropped_and_pasted_pictures(page, astronaut):
    event = """
        const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], 'dropped.jpg'));
        const made = { bubbles: true, cancelable: true };
        const event = arguments[1] === 'drop' ? new DragEvent('drop', { ...made, dataTransfer: data })
          : new ClipboardEvent('paste', { ...made, clipboardData: data });
        document.body.dispatchEvent(event);
    """
    for kind in ('drop', 'paste'):
        page.do(event, base64.b64encode(astronaut).decode(), kind)
        page.wait(CARD)
        assert page.text('#status').startswith('One face: happiness 63 %.')
        page.do("document.querySelector('#faces').replaceChildren()")
        page.open(page.do('return location.href'))


def test_errors_are_words(page, folder, server, finder):
    for name, words in (
        (
            'drawing.jpg',
            'This is SVG, a drawing that can hold programs; a picture (JPEG, PNG, BMP, PNM, TIFF, WEBP, GIF)',
        ),
        ('large.png', 'The file has 1.0 MB; up to 1.0 MB are read.'),
    ):
        page.type('#file', folder / name)
        said = page.wait(
            "return document.querySelector('#error').hidden ? '' : document.querySelector('#error').innerText"
        )
        assert said.startswith(words)
        page.type('#file', folder / 'astronaut.jpg')  # and what comes after it is read
        page.wait(f"{CARD} && document.querySelector('#error').hidden")
        page.open(page.do('return location.href'))


def test_a_busy_server_is_waited_for(page, folder, server, finder, astronaut):
    finder.go.clear()
    others = [threading.Thread(target=server.predict, args=(astronaut,)) for _ in range(2)]
    for other in others:
        other.start()
    end = time.monotonic() + 10
    while b'in_progress 2.0' not in server.ask('GET', '/metrics').body:
        assert time.monotonic() < end
    page.type('#file', folder / 'astronaut.jpg')
    page.wait("return document.querySelector('#status').innerText.includes('try again in')")
    finder.go.set()
    page.wait(CARD)
    for other in others:
        other.join()


def test_a_picture_that_the_browser_cannot_show_has_its_faces(page, folder):
    page.type('#file', folder / 'astronaut.tif')
    page.wait(CARD)
    assert page.text('#status').startswith('One face: happiness 63 %.')


def live(page, button, seconds=3):
    """What the page shows after some seconds of it."""
    page.click(button)
    page.wait(CARD)
    time.sleep(seconds)
    assert page.do('return document.querySelector(arguments[0]).ariaPressed', button) == 'true'
    shown = {name: page.text(f'#{name}') for name in ('faces', 'rate', 'status')}
    page.click('#over-time summary')
    shown['table'] = page.wait("return document.querySelector('#people').innerText")
    page.click('#stop')
    assert page.text('#status').startswith('Stopped') and page.do("return document.querySelector('#stop').hidden")
    return shown


def check_live(page, button):
    shown = live(page, button)
    assert 'person 1' in shown['faces'] and 'person 2' not in shown['faces'] and 'happiness' in shown['faces']
    rate, unit, *_ = shown['rate'].split()
    assert float(rate) > 0.2 and unit == 'frames/s'
    assert shown['table'].split()[:3] == ['1', 'happiness', 'happiness']
    assert page.do("return document.querySelector('#timeline').width") > 300


def test_a_camera_shows_live_faces(page):
    check_live(page, '#camera')


def test_a_screen_shows_live_faces(folder, server):
    with start('--auto-select-tab-capture-source-by-title=shared') as window:
        window.open(f'http://127.0.0.1:{server.port}/')
        window.new_tab((folder / 'shared.html').as_uri())
        check_live(window, '#screen')


def test_a_camera_that_is_not_allowed_is_said(page):
    page.do("navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotAllowedError'))")
    page.click('#camera')
    said = page.wait("return document.querySelector('#error').innerText")
    assert said == 'The camera was not allowed. Allow it in the browser and try again.'


def test_by_keyboard_alone(page):
    names = []
    for _ in range(8):
        page.press('\ue004')  # tab
        names.append(page.do('return document.activeElement.innerText.trim() || document.activeElement.id'))
    assert names[:5] == ['To the picture', 'API', 'Picture', 'Camera', 'Screen']


def test_everything_has_a_name_and_fits_a_phone(page, folder):
    """The tree that screen readers get; and nothing wider than the window."""
    page.devtools('Emulation.setDeviceMetricsOverride', width=360, height=740, deviceScaleFactor=2, mobile=True)
    page.type('#file', folder / 'astronaut.jpg')
    page.wait(CARD)
    nodes = page.devtools('Accessibility.getFullAXTree')['nodes']
    named = [(node['role']['value'], node.get('name', {}).get('value', '')) for node in nodes if not node['ignored']]
    wanted = {'button', 'image', 'link', 'heading', 'textbox'}
    assert not [role for role, name in named if role in wanted and not name]
    assert ('image', 'One face: happiness 63 %.') in named and ('heading', 'Faces') in named
    assert page.do('return document.documentElement.scrollWidth') <= 360
    page.devtools('Emulation.clearDeviceMetricsOverride')


def test_the_token_is_asked_for(window, finder, folder):
    with serving(finder, token='sixteen letters at least') as server:
        window.open(f'http://127.0.0.1:{server.port}/')
        for token in ('wrong', 'sixteen letters at least'):
            window.wait("return document.querySelector('#ask').open")
            window.type('#token', token)
            window.click('#ask button')
            time.sleep(0.5)
        assert not window.do("return document.querySelector('#ask').open")
        window.type('#file', folder / 'astronaut.jpg')
        window.wait(CARD)
        assert window.text('#status').startswith('One face: happiness 63 %.')
        window.log()
