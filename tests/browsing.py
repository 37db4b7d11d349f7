"""A real headless Chromium, told what to do by WebDriver's own protocol (w3.org/TR/webdriver2) over HTTP."""

import base64
import contextlib
import http.client
import json
import re
import shutil
import subprocess
import tempfile
import time

CHROMIUM, DRIVER = shutil.which('chromium'), shutil.which('chromedriver')
MISSING = '' if CHROMIUM and DRIVER else 'chromium and chromedriver are not installed'
_ELEMENT = 'element-6066-11e4-a52e-4f735466cecf'  # the protocol's name for a reference
_FLAGS = (
    *('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'),
    *('--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'),
    '--window-size=1280,1000',
)


class Browser:
    """A window of a Chromium that `browsing` has started."""

    def __init__(self, port, session):
        self._port, self._session = port, session

    def open(self, address):
        """Loads a page; back when its scripts have run, for a driver now and then comes back before."""
        self._tell('POST', '/url', url=address)
        self.wait("return document.readyState === 'complete'")

    def do(self, script, *arguments):
        """What `script`, the body of a function, returns; promises are waited for."""
        return self._tell('POST', '/execute/sync', script=script, args=arguments)

    def wait(self, script, *arguments, seconds=30):
        """Until `script` returns something true, which is given back."""
        end = time.monotonic() + seconds
        while not (value := self.do(script, *arguments)):
            if time.monotonic() > end:
                raise AssertionError(f'not within {seconds} s: {script}\n{self.text("body")}\n{self.log()}')
            time.sleep(0.1)
        return value

    def text(self, selector):
        return self.do('return document.querySelector(arguments[0]).innerText', selector)

    def click(self, selector):
        self._tell('POST', f'/element/{self._find(selector)}/click')

    def type(self, selector, words):
        """Types; into a file field the path of a file."""
        self._tell('POST', f'/element/{self._find(selector)}/value', text=str(words))

    def press(self, key):
        actions = [{'type': kind, 'value': key} for kind in ('keyDown', 'keyUp')]
        self._tell('POST', '/actions', actions=[{'type': 'key', 'id': 'keys', 'actions': actions}])

    def new_tab(self, address):
        """Opens it in another tab and comes back."""
        here = self._tell('GET', '/window')
        there = self._tell('POST', '/window/new', type='tab')['handle']
        self._tell('POST', '/window', handle=there)
        self.open(address)
        self._tell('POST', '/window', handle=here)

    def devtools(self, command, **parameters):
        return self._tell('POST', '/goog/cdp/execute', cmd=command, params=parameters)

    def picture(self):
        """What the window shows, as PNG."""
        return base64.b64decode(self._tell('GET', '/screenshot'))

    def log(self):
        """What the page has complained of since last asked."""
        return [entry['message'] for entry in self._tell('POST', '/se/log', type='browser')]

    def _find(self, selector):
        return self._tell('POST', '/element', using='css selector', value=selector)[_ELEMENT]

    def _tell(self, method, path, **content):
        return _ask(self._port, method, f'/session/{self._session}{path}', content)


@contextlib.contextmanager
def browsing(*flags, downloads=None):
    """A Chromium with a profile of its own, and more flags."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = subprocess.Popen([DRIVER, '--port=0'], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            port = next(
                int(found[1]) for line in driver.stdout if (found := re.search(r'successfully on port (\d+)', line))
            )
            options = {'binary': CHROMIUM, 'args': [*_FLAGS, f'--user-data-dir={profile}', *flags]}
            if downloads:
                options['prefs'] = {'download.default_directory': str(downloads)}
            wanted = {'goog:chromeOptions': options, 'goog:loggingPrefs': {'browser': 'ALL'}}
            session = _ask(port, 'POST', '/session', {'capabilities': {'alwaysMatch': wanted}})['sessionId']
            try:
                yield Browser(port, session)
            finally:
                _ask(port, 'DELETE', f'/session/{session}')
        finally:
            driver.terminate()
            driver.wait(10)
            driver.stdout.close()


def _ask(port, method, path, content=None):
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=120)
    with contextlib.closing(connection):
        body = None if method == 'GET' or content is None else json.dumps(content)
        connection.request(method, path, body, {'Content-Type': 'application/json'})
        value = json.loads(connection.getresponse().read())['value']
    if isinstance(value, dict) and value.get('error'):
        raise AssertionError(f'{path}: {value["error"]}: {value["message"].splitlines()[0]}')
    return value
