"""The page that reads pictures itself, in a real Chromium: it says what the server says, and nothing leaves it."""

import hashlib
import json
import shutil
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from fer_jax import Recognizer, browser_models, exported
from fer_jax.apps.web import onnxruntime_web, running
from fer_jax.apps.web.in_browser import InBrowser
from fer_jax.apps.web.onnxruntime_web import load_runtime
from fer_jax.errors import UserError
from tests import browsing
from tests.browsing import browsing as start
from tests.serving import serving

in_chromium = pytest.mark.skipif(bool(browsing.MISSING), reason=browsing.MISSING)
CARD = "return document.querySelector('#faces .bars') && document.querySelector('#faces').innerText"


@pytest.fixture
def runtime():
    try:
        return load_runtime()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture
def requests(monkeypatch):
    """What reaches the servers of a test: (method, path, bytes of the body)."""
    seen, make_app = [], running.make_app

    def watched(service):
        app = make_app(service)

        async def watch(scope, receive, send):
            if scope['type'] != 'http':
                return await app(scope, receive, send)
            entry = [scope['method'], scope['path'], 0]
            seen.append(entry)

            async def counted():
                message = await receive()
                entry[2] += len(message.get('body', b''))
                return message

            await app(scope, counted, send)

        return watch

    monkeypatch.setattr(running, 'make_app', watched)
    return seen


@pytest.fixture
def runs(make_run):
    """Two that frame faces otherwise: grey squares of 12 pixels; aligned, in colour, the middle 10 of 14 pixels."""
    square = make_run('square')
    aligned = make_run('aligned', data__size=14, data__crop=10, data__channels=3, evaluation__last=2)
    path = Path(aligned) / 'config.json'
    described = json.loads(path.read_text())
    described['manifest']['align'] = {'detector': 'mtcnn', 'size': 30}
    path.write_text(json.dumps(described))
    return [square, aligned]


@pytest.fixture
def pictures(tmp_path):
    """One face; six, large and small, turned, mirrored and grey, in a picture of odd sides; none."""
    face = Image.fromarray(skimage.data.astronaut()).crop((100, 0, 340, 240))
    face.save(tmp_path / 'one.png')
    montage = Image.new('RGB', (701, 503), (60, 70, 90))
    for index, (side, turn) in enumerate(((240, 0), (200, 25), (150, -35), (96, 0), (64, 10), (180, 0))):
        part = face.rotate(turn, Image.Resampling.BICUBIC).resize((side, side), Image.Resampling.LANCZOS)
        part = part.convert('L').convert('RGB') if index == 5 else part
        montage.paste(part, (230 * (index % 3), 250 * (index // 3)))
    montage.save(tmp_path / 'montage.png')
    Image.fromarray(skimage.data.coffee()).resize((200, 133)).save(tmp_path / 'none.png')
    (tmp_path / 'drawing.png').write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    with (tmp_path / 'face.mjpeg').open('wb') as film:
        for shift in (*range(0, 40, 4), *range(40, 0, -4)):
            face.crop((shift, 0, 200 + shift, 150)).resize((320, 240)).save(film, 'JPEG', quality=90)
    return tmp_path


def said_by(page, folder, name):
    """What the page saves of the picture."""
    page.open(page.do('return location.href'))
    page.wait("return !document.querySelector('#stays').hidden", seconds=60)
    assert page.text('#status') == 'Ready.' and page.text('#stays') == 'Pictures stay on this machine'
    page.type('#file', folder / f'{name}.png')
    page.wait("return !document.querySelector('#save-json').disabled", seconds=60)
    page.click('#save-json')
    path, end = folder / f'{name}.json', time.monotonic() + 20
    while not (path.exists() and path.stat().st_size):
        assert time.monotonic() < end
        time.sleep(0.1)
    return json.loads(path.read_text(encoding='utf-8'))


@in_chromium
def test_the_browser_says_what_the_server_says_and_uploads_nothing(runtime, runs, pictures, requests):
    recognizer = Recognizer(runs, last=1, tta='flip', threshold=0.3)
    local = browser_models.make_in_browser(exported.load_classifiers(runs, 1, 'flip'), 20)
    with serving(recognizer, threshold=0.3) as server:
        expected = {
            name: server.predict((pictures / f'{name}.png').read_bytes()).json for name in ('one', 'montage', 'none')
        }
    requests.clear()
    flags = ('--use-fake-ui-for-media-stream', '--use-fake-device-for-media-stream')
    camera = f'--use-file-for-fake-video-capture={pictures / "face.mjpeg"}'
    with serving(None, threshold=0.3, in_browser=local) as server, start(*flags, camera, downloads=pictures) as page:
        refused = server.predict(b'a picture')
        assert refused.status == 404 and refused.json['wrong'] == 'this server reads no pictures'
        assert '/api/predict' not in json.loads(server.ask('GET', '/openapi.json').body)['paths']
        policy = server.ask('GET', '/').headers['Content-Security-Policy']
        assert "script-src 'self' 'wasm-unsafe-eval';" in policy and "default-src 'none'" in policy
        requests.clear()
        page.open(f'http://127.0.0.1:{server.port}/')
        for name, right in expected.items():
            said = said_by(page, pictures, name)
            compare(said, right | {'source': f'{name}.png'})
        assert len(expected['montage']['faces']) == 6
        page.type('#file', pictures / 'drawing.png')
        page.wait("return document.querySelector('#error').innerText.startsWith('This browser cannot read that')")
        page.click('#camera')
        page.wait(CARD)
        page.wait("return document.querySelector('#people tr')", seconds=60)
        assert 'person 1' in page.text('#faces') and 'person 2' not in page.text('#faces')
        assert page.text('#where') == 'Pictures are read in this browser and never leave this machine.'
        page.click('#stop')
        assert not page.log()
        assert page.do('return self.crossOriginIsolated')
    assert {method for method, _, _ in requests} == {'GET'} and not sum(size for _, _, size in requests)
    assert not [path for _, path, _ in requests if 'predict' in path]


def test_a_token_guards_the_networks_too(runtime):
    about = InBrowser({'classifier_0': b'network'}, {}, {}, [], [], runtime)
    with serving(None, in_browser=about, token='sixteen letters at least') as server:
        told = {'Authorization': 'Bearer sixteen letters at least'}
        model = server.ask('GET', '/api/model', headers=told).json['in_browser']
        path = f'/{model["models"]["classifier_0"]}'
        assert server.ask('GET', path).status == 401 and server.ask('GET', path, headers=told).body == b'network'
        wasm = server.ask('GET', f'/{model["runtime"]["wasm"]}')
        assert wasm.status == 200 and wasm.headers['Content-Type'] == 'application/wasm'
        assert wasm.headers['Cross-Origin-Embedder-Policy'] == 'require-corp'


def compare(said, right):
    """The same JSON, numbers nearly: places to a twentieth of a pixel, probabilities to a thousandth."""
    faces, others = said.pop('faces'), right.pop('faces')
    assert said == right and len(faces) == len(others)
    for face, other in zip(faces, others, strict=True):
        assert list(face) == list(other)
        np.testing.assert_allclose(face['box'], other['box'], atol=0.05)
        np.testing.assert_allclose(face['points'], other['points'], atol=0.05)
        assert face['score'] == pytest.approx(other['score'], abs=1e-3)
        assert face['probabilities'] == pytest.approx(other['probabilities'], abs=1e-3)
        assert (face['emotion'], face['emoji']) == (other['emotion'], other['emoji'])


def test_the_runtime_is_what_is_known_or_the_way_to_it_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(onnxruntime_web.shutil, 'which', lambda _: None)
    with pytest.raises(
        UserError, match=r'needs onnxruntime-web 1\.\d+\.\d: install npm, which fetches it, or put the file of'
    ):
        load_runtime(tmp_path)
    package = tmp_path / f'onnxruntime-web-{onnxruntime_web.VERSION}.tgz'
    package.write_bytes(b'no archive')
    with pytest.raises(UserError, match='is not the package onnxruntime-web'):
        load_runtime(tmp_path)
    source = tmp_path / 'package' / 'dist'
    source.mkdir(parents=True)
    for name in onnxruntime_web.HASHES:
        (source / name).write_text(name)
    with tarfile.open(package, 'w:gz') as archive:
        archive.add(source.parent, 'package')
    with pytest.raises(UserError, match=r'ort\.wasm\.min\.mjs is not that of onnxruntime-web'):
        load_runtime(tmp_path)
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in onnxruntime_web.HASHES}
    monkeypatch.setattr(onnxruntime_web, 'HASHES', hashes)
    assert load_runtime(tmp_path) == {name: name.encode() for name in hashes}
    package.unlink()
    shutil.rmtree(tmp_path / 'package')
    assert set(load_runtime(tmp_path)) == set(hashes)
    (tmp_path / f'onnxruntime-web-{onnxruntime_web.VERSION}' / 'ort.wasm.min.mjs').write_text('changed')
    with pytest.raises(UserError, match='is not that of'):
        load_runtime(tmp_path)
