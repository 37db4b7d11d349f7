"""The review page in a real browser: keys, undo, what is kept, what is exported, and nothing loaded from elsewhere."""

import json
import re
import shutil
import subprocess
import time
import urllib.request

import numpy as np
import pytest

from fer_jax.reports.review import write_review_page

CLASSES = ('anger', 'fear', 'happiness')
ELEMENT = 'element-6066-11e4-a52e-4f735466cecf'
KEYS = {'left': '\ue012', 'right': '\ue014'}


def page(path, suspects=3, method='margin'):
    random = np.random.default_rng(0)
    face = lambda: random.integers(0, 256, (12, 12, 1)).astype(np.uint8)
    names = ['train_1', 'odd,"id"</script>', 'train_3'][:suspects]
    shown = [
        {
            'id': name,
            'label': CLASSES[place],
            'suggested': ('fear', '', 'anger')[place],
            'score': 0.9 - place / 10,
            'image': face(),
            'translation': ('happiness', face()) if place == 0 else None,
        }
        for place, name in enumerate(names)
    ]
    return write_review_page(
        path, suspects=shown, class_names=CLASSES, method=method, dataset='rows', total=suspects and 7
    )


def test_the_page_needs_nothing_else(tmp_path):
    text = page(tmp_path / 'review.html').read_text()
    assert "default-src 'none'" in text
    without_data = re.sub(r'data:image/png;base64,[A-Za-z0-9+/=]+', '', text)
    assert not re.search(r'https?://|src="[^"]+"|href="|@import|url\(', without_data)
    assert text.count('</script>') == 2  # the id above did not end one


class Browser:
    """Chromium over chromedriver's HTTP, without a library for it."""

    def __init__(self, port, folder):
        self._url = f'http://127.0.0.1:{port}'
        arguments = ['--headless', '--no-sandbox', '--disable-gpu', f'--user-data-dir={folder}/profile']
        preferences = {'download.default_directory': str(folder), 'download.prompt_for_download': False}
        options = {'binary': shutil.which('chromium'), 'args': arguments, 'prefs': preferences}
        wanted = {'capabilities': {'alwaysMatch': {'goog:chromeOptions': options}}}
        self._url += '/session/' + self._ask('/session', wanted)['sessionId']

    def _ask(self, path, body=None, method='POST'):
        data = None if method != 'POST' else json.dumps(body or {}).encode()
        request = urllib.request.Request(self._url + path, data, {'Content-Type': 'application/json'}, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)['value']

    def open(self, path):
        self._ask('/url', {'url': f'file://{path}'})

    def run(self, script):
        return self._ask('/execute/sync', {'script': script, 'args': []})

    def text(self, name):
        return self.run(f"return document.getElementById('{name}').textContent")

    def press(self, *keys):
        for key in keys:
            typed = [{'type': kind, 'value': KEYS.get(key, key)} for kind in ('keyDown', 'keyUp')]
            self._ask('/actions', {'actions': [{'type': 'key', 'id': 'keyboard', 'actions': typed}]})

    def click(self, selector):
        found = self._ask('/element', {'using': 'css selector', 'value': selector})
        self._ask(f'/element/{found[ELEMENT]}/click')

    def size(self, width, height):
        self._ask('/window/rect', {'width': width, 'height': height})

    def quit(self):
        self._ask('', method='DELETE')


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    missing = [name for name in ('chromium', 'chromedriver') if not shutil.which(name)]
    if missing:
        pytest.skip(f'{" and ".join(missing)} not installed')
    folder = tmp_path_factory.mktemp('browser')
    with (folder / 'log').open('w') as log:
        driver = subprocess.Popen(['chromedriver', '--port=0'], stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            port = next(
                int(found[1]) for line in driver.stdout if (found := re.search(r'successfully on port (\d+)', line))
            )
            browser = Browser(port, folder)
            browser.folder = folder
            yield browser
            browser.quit()
        finally:
            driver.kill()
            driver.stdout.close()
            driver.wait()


def exported(browser):
    path = browser.folder / 'review.csv'
    path.unlink(missing_ok=True)
    browser.press('e')
    for _ in range(200):
        if path.exists():
            return path.read_text()
        time.sleep(0.1)
    raise AssertionError('nothing was downloaded')


def test_suspects_are_gone_through_by_keyboard(browser, tmp_path):
    path = page(tmp_path / 'review.html')
    browser.open(path)
    assert browser.text('about') == 'rows · margin · the 3 most suspect of 7 flagged'
    assert (browser.text('label'), browser.text('suggested'), browser.text('score')) == ('anger', 'fear', '0.900')
    assert browser.run("return document.getElementById('face').naturalWidth") == 12
    assert browser.text('translation-caption') == 'translated to happiness'
    browser.press('r')  # as suggested
    assert browser.text('id') == 'odd,"id"</script>' and browser.text('suggested') == 'none'
    assert browser.run("return document.getElementById('translated').hidden")
    browser.press('r', '2')  # nothing is suggested, and fear is the label: neither decides
    assert browser.text('count') == 'Suspect 2 of 3 · 1 decided'
    browser.press('k')
    browser.press('d')
    assert 'All are decided: export the CSV.' in browser.text('said')
    assert exported(browser) == (
        'id,label,decision,new_label\ntrain_1,anger,relabel,fear\n"odd,""id""</script>",fear,keep,\n'
        'train_3,happiness,drop,\n'
    )


def test_decisions_are_undone_changed_and_kept(browser, tmp_path):
    path = page(tmp_path / 'review.html', method='kept')
    browser.open(path)
    browser.press('d', 'd', 'u')
    assert browser.text('count') == 'Suspect 2 of 3 · 1 decided'
    browser.press('left', '3')  # decided anew
    browser.open(path)  # closed and opened again
    assert browser.text('count') == 'Suspect 2 of 3 · 1 decided'
    browser.press('left')
    assert browser.text('decision') == 'Decided: relabelled as happiness'
    browser.press('u')
    assert browser.text('decision') == 'Decided: dropped'
    browser.press('u')
    assert exported(browser) == 'id,label,decision,new_label\n'
    browser.click('#classes button[data-name=happiness]')  # as a finger does
    assert exported(browser).endswith('train_1,anger,relabel,happiness\n')
    browser.open(page(tmp_path / 'other.html', method='another'))  # another audit's decisions are others
    assert browser.text('count') == 'Suspect 1 of 3 · 0 decided'


def test_it_fits_a_phone_and_speaks(browser, tmp_path):
    browser.size(390, 844)
    browser.open(page(tmp_path / 'review.html', method='phone'))
    assert browser.run('return document.documentElement.scrollWidth <= window.innerWidth')
    smallest = 'return Math.min(...[...document.querySelectorAll("button")].map((b) => b.offsetHeight || 99))'
    assert browser.run(smallest) >= 44
    assert browser.run("return document.getElementById('face').alt") == 'Face labelled anger'
    browser.press('right')
    assert browser.text('said') == 'Suspect 2 of 3: fear, not decided yet.'
    assert browser.run("return document.getElementById('said').getAttribute('aria-live')") == 'polite'
    nameless = "return [...document.querySelectorAll('button')].filter((b) => !b.textContent.trim()).length"
    assert browser.run(nameless) == 0


def test_nothing_flagged_is_said(browser, tmp_path):
    browser.open(page(tmp_path / 'review.html', suspects=0))
    assert browser.text('said') == 'Nothing is flagged: there is nothing to review.'
