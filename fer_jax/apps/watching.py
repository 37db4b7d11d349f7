"""Folders in which files come: each is given once it is whole."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fer_jax.apps.inputs import Input, find_inputs
from fer_jax.apps.stopping import Stop
from fer_jax.data.files import printable
from fer_jax.errors import UserError

PAUSE = 1.0  # seconds from one look to the next
_SHARE = 4  # of the time goes at most one part in so many to looking


def watch(folders: Sequence[str], output: Path, stop: Stop, is_done: Callable[[Input], bool]) -> Iterator[list[Input]]:
    """What is to be read in folders, as it comes, until it is stopped.

    A file is whole when its size and time are the same in two looks; one that changes later comes again. Who takes
    them has to have read them, or tried to, before asking for more.

    Args:
        folders: they may be empty; one that is gone is waited for.
        output: a folder whose files are left out.
        is_done: whether a file in this very state was read before.
    """
    stop.begin()
    before, tried, told = {}, {}, []
    while not stop:
        began = time.monotonic()
        try:
            inputs = find_inputs(folders, output, empty=True)[0]
            gone = [folder for folder in folders if not os.path.exists(os.path.expanduser(folder))]
            trouble = [f'{printable(folder)} is gone' for folder in gone]
        except (UserError, OSError) as error:
            inputs, trouble = [], [str(error)]
        for words in trouble:  # a folder that is gone may come back
            if words not in told:
                print(f'{words}; it is waited for', file=sys.stderr)
        told = trouble
        now = {source.name: (source.member.size, source.modified) for source in inputs}
        whole = [
            source
            for source in inputs
            if before.get(source.name) == now[source.name] != tried.get(source.name) and not is_done(source)
        ]
        before = now
        if whole:
            yield whole
            tried.update((source.name, now[source.name]) for source in whole)
        stop.wait(max(PAUSE, _SHARE * (time.monotonic() - began)) if not whole else PAUSE)
