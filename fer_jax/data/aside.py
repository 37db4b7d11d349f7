"""Writing a directory aside and committing it by rename, so that it is there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from fer_jax.errors import UserError


@contextlib.contextmanager
def written_aside(output: Path, *, overwrite: bool = False, keep: str = '') -> Iterator[Path]:
    """Gives a directory beside `output` that takes its place when the context ends without an error.

    The directory is empty but for the entry called `keep`, work of an earlier run that was killed or failed: that
    stays there until the context ends well, and goes then. All else that such a run left is removed first. The old
    `output` stays until the new one is on the disk.

    Raises:
        UserError: if another process is writing the same output, or `output` is there and `overwrite` is not set.
    """
    output = output.resolve()
    aside = output.parent / f'.{output.name}.incomplete'
    replaced = output.parent / f'.{output.name}.replaced'
    made = _make_folders(aside)
    with _locked(aside, output):
        try:
            if replaced.exists() and not output.exists():  # killed between the two renames below
                replaced.rename(output)
            _remove(replaced)
            _clear(aside, keep)
            yield aside
            _flush(aside, keep)
            if output.exists() and any(output.iterdir()):
                if not overwrite:
                    raise UserError(f'{output} is there already; choose another --output or give --overwrite')
                output.rename(replaced)
            if keep:
                _remove(aside / keep)
            aside.rename(output)
            _remove(replaced)
        except BaseException:
            _clear(aside, keep)
            for folder in (aside, *made):
                with contextlib.suppress(OSError):  # not empty
                    folder.rmdir()
            raise


def _make_folders(folder: Path) -> list[Path]:
    """Makes it and those above it; returns those above that it made, innermost first."""
    above = [parent for parent in folder.parents if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return above


@contextlib.contextmanager
def _locked(aside: Path, output: Path) -> Iterator[None]:
    """Holds a lock that the kernel drops with the process, so that a killed run blocks nobody."""
    descriptor = os.open(aside, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno == errno.EWOULDBLOCK:
                raise UserError(f'another process is writing {output} just now') from None
            # Some network file systems have no locks; there the rename alone protects the output.
        yield
    finally:
        os.close(descriptor)


def _flush(folder: Path, keep: str) -> None:
    for parent, folders, names in os.walk(folder):
        if parent == os.fspath(folder) and keep in folders:
            folders.remove(keep)
        for path in (*(os.path.join(parent, name) for name in names), parent):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _clear(folder: Path, keep: str) -> None:
    for entry in folder.iterdir() if folder.exists() else ():
        if entry.name != keep:
            _remove(entry)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
