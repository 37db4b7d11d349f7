"""What is shown live: text in place and as lines, and a window on a real X server."""

import io
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from fer_jax.apps import view
from fer_jax.apps.view import Text, open_view, place
from tests import screens
from tests.serving import stub_face

FACES = [(1, stub_face()), (12, stub_face(shares=(0.45, 0.35, 0.2)))]

_SHOW = """
import sys
import numpy as np
from fer_jax.apps.view import open_view

image = np.zeros((100, 200, 3), np.uint8)
image[:, :100] = 250, 10, 20
with open_view('title', True, None) as window:
    assert window.wants_picture and window.area is None
    window.show([], 'words', image)
    window.show([], 'words', image)
    print(*window.area, flush=True)
    sys.stdin.readline()
    before = window.closed
    window._root.event_generate('<Escape>')
    window.wait()
    print(before, window.closed)
"""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_come_once_a_second_where_there_is_no_terminal(monkeypatch):
    now = iter((0.5, 0.5, 1.0, 1.6, 1.6))
    monkeypatch.setattr(view, 'time', SimpleNamespace(monotonic=lambda: next(now)))
    out = io.StringIO()
    with Text(out) as text:
        for index, people in enumerate((FACES, FACES, [])):
            text.show(people, f'look {index}')
    assert out.getvalue() == 'look 0: person 1 happiness 70 %, person 12 anger? 45 %\nlook 2: nobody\n'


def test_a_terminal_is_written_in_place(monkeypatch):
    monkeypatch.setattr(view, 'shutil', SimpleNamespace(get_terminal_size=lambda: (60, 24)))
    out = Terminal()
    with Text(out) as text:
        text.show(FACES, 'first')
        text.show(FACES[:1], 'second')
    rows = out.getvalue().split('\n')
    assert rows[0] == '\x1b[Jperson 1   ██████████████······ 😀 happiness 70 %'
    assert rows[1] == 'person 12  █████████··········· 😠 anger? 45 %' and rows[2] == 'first'
    assert rows[3].startswith('\x1b[3F\x1b[Jperson 1 ') and rows[4:] == ['second', '']


def test_no_line_is_wider_than_the_terminal_nor_the_block_higher(monkeypatch):
    monkeypatch.setattr(view, 'shutil', SimpleNamespace(get_terminal_size=lambda: (35, 3)))
    out = Terminal()
    Text(out).show(FACES * 3, 'words')
    assert out.getvalue() == '\x1b[Jperson 12  █████████··········· 😠\nwords\n'  # an emoji takes two places


@pytest.mark.parametrize(
    ('size', 'beside', 'expected'),
    [
        ((400, 300), None, (300, 240, 400, 320)),
        ((2000, 1000), None, (20, 150, 960, 500)),
        ((400, 300), (0, 0, 500, 800), (550, 240, 400, 320)),
        ((400, 300), (500, 0, 500, 800), (50, 240, 400, 320)),
        ((400, 300), (0, 0, 1000, 400), (300, 440, 400, 320)),
        ((1000, 800), (0, 0, 1000, 800), (663, 508, 317, 272)),
    ],
)
def test_where_a_window_goes(size, beside, expected):
    left, top, width, height = place((1000, 800), size, 20, beside)
    assert 0 <= left <= left + width <= 1000 and 0 <= top <= top + height <= 800
    assert np.allclose(width / (height - 20), size[0] / size[1], rtol=0.01)
    assert np.allclose((left, top, width, height), expected, atol=12)
    if beside and beside[2:] != (1000, 800):
        assert left >= beside[0] + beside[2] or left + width <= beside[0] or top >= beside[1] + beside[3]


def test_text_is_shown_where_there_is_no_display(monkeypatch, capsys):
    monkeypatch.delenv('DISPLAY', raising=False)
    assert isinstance(open_view('title', True, None), Text) and capsys.readouterr().err == ''
    monkeypatch.setenv('DISPLAY', ':4094')
    assert isinstance(open_view('title', False, None), Text)


@pytest.mark.skipif(bool(screens.MISSING), reason=screens.MISSING)
def test_a_window_shows_the_picture_where_it_says_it_lies():
    import mss

    # In a process of its own: Tk ends the one it is in when its X server goes.
    command = [sys.executable, '-c', _SHOW]
    with (
        screens.x_server(600, 400) as display,
        subprocess.Popen(
            command, env={**os.environ, 'DISPLAY': display}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as shown,
        mss.MSS(display=display) as grabber,
    ):
        left, top, width, height = map(int, shown.stdout.readline().split())
        whole = np.asarray(grabber.grab(grabber.monitors[0]))[..., 2::-1].copy()
        window = whole[top : top + height, left : left + width]
        assert (window[:100, :100] == (250, 10, 20)).all() and (window[:100, 100:200] == 0).all()
        assert window.shape[1] == 200 and window[100:].max() == 255  # words, in white
        window[...] = 0
        assert not whole.any()
        assert shown.communicate('\n', timeout=60)[0] == 'False True\n'
        assert shown.returncode == 0


def test_a_display_that_is_not_there_is_said(monkeypatch, capsys):
    pytest.importorskip('tkinter')
    monkeypatch.setenv('DISPLAY', ':4094')
    assert isinstance(open_view('title', True, None), Text)
    assert capsys.readouterr().err.startswith('No window: ')
