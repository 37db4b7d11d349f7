"""The command: what it refuses, and a real process from its first line to its end."""

import configparser
import contextlib
import fnmatch
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from fer_jax import cli, serve
from fer_jax.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--run=a,'], 'empty name between the commas'),
        (['--run=nowhere'], 'nowhere is no run'),
        (['--run=a', '--prot=1'], 'did you mean --port?'),
        (['--run=a', '--port=99999'], '--port=99999: ports are 0 to 65535'),
        (['--run=a', '--host=300.1.1.1'], '--host=300.1.1.1 is no address of this machine'),
        (['--run=a', '--max-requests=0'], '--max-requests=0: 1 or more'),
        (['--run=a', '--max-bytes=-5'], '--max-bytes=-5: 1 or more'),
        (['--run=a', '--max-seconds=0'], '--max-seconds=0: more than 0'),
        (['--run=a', '--smoothing=-1'], '--smoothing=-1'),
        (['--run=a', '--token-file=nowhere'], '--token-file=nowhere cannot be read: No such file'),
        (['--run=a', '--token-file={short}'], 'the token is too short'),
        (['--run=a', '--in-browser', '--landmarks=x'], '--landmarks is for dlib, which no browser has'),
        (['--run=a', '--in-browser', '--min-face=3'], '--min-face=3: the smallest face'),
        (['--run=nowhere', '--in-browser', '--tta=five_crop'], "test-time augmentation 'five_crop' cannot be exported"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(monkeypatch, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'short').write_text('secret\n')
    monkeypatch.setattr(signal, 'signal', lambda *_: None)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        serve.main(['--port=0', *(word.format(short=tmp_path / 'short') for word in words)])
    assert '\n' not in str(caught.value)


def test_without_its_packages_it_says_how_to_install_them(monkeypatch):
    monkeypatch.setattr(serve.importlib.util, 'find_spec', lambda name: None if name == 'uvicorn' else name)
    with pytest.raises(UserError, match=r"the page needs uvicorn; install it with: pip install 'fer_jax\[serve\]'"):
        serve.main(['--run=a'])


def test_a_port_that_is_taken_is_said_with_its_code(monkeypatch, capsys):
    with socket.create_server(('127.0.0.1', 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setattr(sys, 'argv', ['fer_jax/serve.py', '--run=a', f'--port={port}'])
        monkeypatch.setattr(signal, 'signal', lambda *_: None)
        with pytest.raises(SystemExit) as caught:
            cli.run(serve.main)
    said = capsys.readouterr().err
    assert caught.value.code == 2 and said.count('\n') == 1
    assert said.startswith(f'fer_jax.serve: error: cannot listen at 127.0.0.1:{port}: ') and '--port' in said


def test_an_installed_copy_has_the_page():
    settings = configparser.ConfigParser()
    settings.read(ROOT / 'setup.cfg')
    pattern = settings['options.package_data']['fer_jax.apps.web']
    files = [
        path.relative_to(ROOT / 'fer_jax/apps/web').as_posix() for path in (ROOT / 'fer_jax/apps/web/page').iterdir()
    ]
    assert 'page/index.html' in files and all(fnmatch.fnmatch(file, pattern) for file in files)


@contextlib.contextmanager
def process(*words, **variables):
    """The command, started; gives its port and the process."""
    command = [sys.executable, '-m', 'fer_jax.serve', '--port=0', *words]
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | {'XLA_FLAGS': ''} | variables, **pipes) as running:
        try:
            lines = iter(running.stdout.readline, '')
            port = next(
                (int(found[1]) for line in lines if (found := re.search(r'^Listening at .*:(\d+)$', line))), None
            )
            assert port, running.stderr.read()
            yield port, running
        finally:
            running.kill()


def ask(port, body=None, path='/api/predict', **headers):
    with contextlib.closing(http.client.HTTPConnection('127.0.0.1', port, timeout=60)) as connection:
        connection.request('POST' if body else 'GET', path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def unread(port):
    """Connections that a server has not accepted, and bytes that it has not read."""
    rows = [line.split() for line in Path('/proc/net/tcp').read_text().splitlines()[1:]]
    return sum(int(row[4].split(':')[1], 16) for row in rows if int(row[1].split(':')[1], 16) == port)


def test_a_real_process_answers_and_ends_what_runs_before_it_stops(make_run, tmp_path):
    file = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(file, 'JPEG')
    (tmp_path / 'token').write_text('a token of many letters\n')
    words = (f'--run={make_run()}', '--max-requests=1', f'--token-file={tmp_path / "token"}', '--access-log')
    with process(*words, HOME=str(tmp_path)) as (port, running):
        assert ask(port, path='/')[0] == 200 and ask(port, file.getvalue())[0] == 401
        right = {'Authorization': 'Bearer a token of many letters'}
        status, body = ask(port, file.getvalue(), **right)
        (face,) = json.loads(body)['faces']
        assert status == 200 and set(face['probabilities']) == {'anger', 'fear', 'happiness'}
        assert 170 < face['box'][0] < 190
        # A request that has begun when the signal comes is ended.
        answers, sent, told = [], threading.Event(), threading.Event()
        data = file.getvalue()

        def slowly():
            yield data[:1000]
            sent.set()
            told.wait(30)
            time.sleep(0.5)
            yield data[1000:]

        late = threading.Thread(target=lambda: answers.append(ask(port, slowly(), **right)))
        late.start()
        assert sent.wait(10)
        while unread(port):
            time.sleep(0.01)
        running.send_signal(signal.SIGTERM)
        told.set()
        late.join(30)
        assert answers[0][0] == 200 and json.loads(answers[0][1])['faces'] == [face]
        said = running.stderr.read() + running.stdout.read()
        assert running.wait(30) == 0, said
        assert 'Traceback' not in said and '"GET / HTTP/1.1" 200' in said and 'many letters' not in said
