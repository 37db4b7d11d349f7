"""A real X server without a screen (Xvfb), and programs that draw on it."""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys

XVFB = shutil.which('Xvfb')
_NEEDED = [name for name in ('tkinter', 'mss') if importlib.util.find_spec(name) is None]
MISSING = '' if XVFB and not _NEEDED else f'not installed: {" ".join([*_NEEDED, *([] if XVFB else ["Xvfb"])])}'
_PAINT = (
    'import sys, tkinter; from PIL import Image, ImageTk; path, place = sys.argv[1:]; root = tkinter.Tk(); '
    'root.geometry(place); photo = ImageTk.PhotoImage(Image.open(path), master=root); '
    'tkinter.Label(root, image=photo, borderwidth=0).pack(); root.update(); root.after(200, print, "drawn"); '
    'sys.stdout.reconfigure(line_buffering=True); root.mainloop()'
)


@contextlib.contextmanager
def x_server(width=800, height=600):
    """The name of a display for as long as the context lasts."""
    reader, writer = os.pipe()
    command = [XVFB, '-displayfd', str(writer), '-screen', '0', f'{width}x{height}x24', '-nolisten', 'tcp']
    server = subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    try:
        with open(reader) as file:
            yield f':{file.readline().strip()}'
    finally:
        server.terminate()
        server.wait(20)


@contextlib.contextmanager
def painted(display, path, place):
    """A window with a picture and nothing else at a place (`400x300+20+10`)."""
    environment = {**os.environ, 'DISPLAY': display}
    command = [sys.executable, '-c', _PAINT, str(path), place]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as window:
        try:
            assert window.stdout.readline() == 'drawn\n'
            yield
        finally:
            window.kill()
