"""How what is read live is shown while it comes: in a window, in place on a terminal, or as lines."""

from __future__ import annotations

import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fer_jax.apps.source import Area
from fer_jax.data.files import printable

if TYPE_CHECKING:
    from fer_jax.apps.recognized import RecognizedFace

_LINE_EVERY = 1.0  # seconds, where lines stay
_BAR = 20  # letters
_EDGE = 20  # pixels that a window leaves free for its frame and for bars of the desktop
_SHARE = 0.34  # of the screen that is read, which a window on it takes at most on either side

Person = tuple[int, 'RecognizedFace']


class View(Protocol):
    """Shows one look after the other; a context.

    wants_picture: whether it shows pictures.
    closed: whether the user has closed it, which ends the reading.
    area: where its window lies on the screen; None where there is none.
    """

    wants_picture: bool
    closed: bool

    @property
    def area(self) -> Area | None: ...

    def show(self, people: Sequence[Person], words: str, image: np.ndarray | None = None) -> None:
        """Shows those who are seen, what is to be said, and if it wants one the drawn picture, uint8 [H, W, 3]."""

    def wait(self) -> None:
        """Called while no picture comes: a window answers."""


def open_view(title: str, window: bool, beside: Area | None):
    """A window where one can be and is wanted, otherwise text.

    Args:
        title: of the window.
        window: whether one is wanted.
        beside: the part of the screen that is read, which a window leaves free if it can.
    """
    if window and os.environ.get('DISPLAY'):
        try:
            return Window(title, beside)
        except (ImportError, RuntimeError) as error:
            print(f'No window: {printable(str(error))}', file=sys.stderr)
    return Text(sys.stdout)


class Text:
    """A block of lines that is written anew in its place; where it is no terminal, a line per second."""

    wants_picture, closed, area = False, False, None

    def __init__(self, out):
        self._out, self._in_place = out, out.isatty()
        self._height, self._next = 0, 0.0

    def __enter__(self) -> Text:
        return self

    def __exit__(self, *_) -> None:
        pass

    def show(self, people: Sequence[Person], words: str, image: np.ndarray | None = None) -> None:
        if self._in_place:
            width, height = shutil.get_terminal_size()
            lines = [*(_bar(person, face) for person, face in people), words]
            lines = [_cut(line, width - 1) for line in lines[-(height - 1) :]]
            above = f'\x1b[{self._height}F' if self._height else ''
            self._out.write(f'{above}\x1b[J' + '\n'.join(lines) + '\n')
            self._height = len(lines)
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_EVERY
            seen = ', '.join(f'person {person} {_said(face)}' for person, face in people)
            self._out.write(f'{words}: {seen or "nobody"}\n')
        self._out.flush()

    def wait(self) -> None:
        pass


class Window:
    """A window with the drawn picture and a line of words; Escape, Q or its button close it.

    Raises:
        ImportError: if this Python has no tkinter.
        RuntimeError: if no window can be opened.
    """

    wants_picture = True

    def __init__(self, title: str, beside: Area | None):
        import tkinter

        try:
            self._root = tkinter.Tk(className='fer_jax')
        except tkinter.TclError as error:
            raise RuntimeError(error) from None
        self._root.withdraw()
        self._root.title(title)
        self._root.configure(background='#14161a')
        self._words = tkinter.Label(self._root, anchor='w', padx=8, pady=4, background='#14161a', foreground='white')
        self._words.pack(side='bottom', fill='x')
        self._picture = tkinter.Label(self._root, borderwidth=0, background='#14161a')
        self._picture.pack(expand=True, fill='both')
        self._beside, self._photo, self.closed, self._placed = beside, None, False, False
        self._root.protocol('WM_DELETE_WINDOW', self._close)
        for key in ('<Escape>', 'q', 'Q'):
            self._root.bind(key, self._close)

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_) -> None:
        if self._root is not None:
            self._root.destroy()
            self._root = self._photo = None

    @property
    def area(self) -> Area | None:
        root = self._root
        if not self._placed or root.state() != 'normal':
            return None
        return root.winfo_rootx(), root.winfo_rooty(), root.winfo_width(), root.winfo_height()

    def show(self, people: Sequence[Person], words: str, image: np.ndarray | None = None) -> None:
        from PIL import Image, ImageTk

        self._words['text'] = f'{words}; Escape ends'
        if image is not None:
            if not self._placed:
                self._place(image.shape[1], image.shape[0])
            room = self._picture.winfo_width(), self._picture.winfo_height()
            scale = min(room[0] / image.shape[1], room[1] / image.shape[0])
            size = max(1, round(scale * image.shape[1])), max(1, round(scale * image.shape[0]))
            picture = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2)
            if self._photo is None or (self._photo.width(), self._photo.height()) != size:
                self._photo = ImageTk.PhotoImage(picture, master=self._root)
                self._picture['image'] = self._photo
            else:
                self._photo.paste(picture)
        self._root.update()

    def wait(self) -> None:
        self._root.update()

    def _place(self, width: int, height: int) -> None:
        screen = self._root.winfo_screenwidth(), self._root.winfo_screenheight()
        line = self._words.winfo_reqheight()
        left, top, width, height = place(screen, (width, height), line, self._beside)
        self._root.geometry(f'{width}x{height}+{left}+{top}')
        self._root.deiconify()
        self._root.update()
        self._placed = True

    def _close(self, *_) -> None:
        self.closed = True


def place(screen: tuple[int, int], size: tuple[int, int], line: int, beside: Area | None) -> Area:
    """Where a window goes: in the middle of the screen; or beside what is read; or small in its right lower corner.

    Args:
        screen: width and height.
        size: the picture's, which is not enlarged and keeps its proportions.
        line: height of the words under it.
        beside: what is not to be covered if that can be.
    """
    scale = lambda room: max(0.0, min(1.0, room[0] / size[0], (room[1] - line) / size[1]))
    rooms = [(0, 0, *screen)]
    if beside:
        left, top, width, height = beside
        rooms = [
            (left + width, 0, screen[0] - left - width, screen[1]),
            (0, 0, left, screen[1]),
            (0, top + height, screen[0], screen[1] - top - height),
            (0, 0, screen[0], top),
        ]
    rooms = [(room[0] + _EDGE, room[1] + _EDGE, room[2] - 2 * _EDGE, room[3] - 2 * _EDGE) for room in rooms]
    left, top, width, height = max(rooms, key=lambda room: scale(room[2:]))
    corner = beside and scale((width, height)) * size[0] < _SHARE * beside[2]  # too little is left
    if corner:
        width, height = (round(_SHARE * side) for side in beside[2:])
    across, down = (max(1, round(scale((width, height)) * side)) for side in size)
    down += line
    if corner:
        left, top = beside[0] + beside[2] - across - _EDGE, beside[1] + beside[3] - down - _EDGE
        return max(0, left), max(0, top), across, down
    return left + (width - across) // 2, top + (height - down) // 2, across, down


def _said(face: RecognizedFace) -> str:
    return f'{face.emotion}{"?" * face.unsure} {100 * face.confidence:.0f} %'


def _bar(person: int, face: RecognizedFace) -> str:
    filled = round(_BAR * face.confidence)
    return f'person {person:<3} {"█" * filled}{"·" * (_BAR - filled)} {face.emoji or "  "} {_said(face)}'


def _cut(line: str, width: int) -> str:
    """As many letters as fit a terminal; emoji are two wide."""
    taken = 0
    for index, letter in enumerate(line):
        taken += 2 if unicodedata.east_asian_width(letter) in 'WF' else 1
        if taken > width:
            return line[:index]
    return line
