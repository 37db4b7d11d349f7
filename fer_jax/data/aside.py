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
def written_aside(output: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Gives an empty directory beside `output` that takes its place when the context ends without an error.

    What a killed run left aside is removed first. The old `output` stays until the new one is on the disk.

    Raises:
        UserError: if another process is writing the same output, or `output` is there and `overwrite` is not set.
    """
    output = output.resolve()
    aside = output.parent / f'.{output.name}.incomplete'
    replaced = output.parent / f'.{output.name}.replaced'
    output.parent.mkdir(parents=True, exist_ok=True)
    aside.mkdir(exist_ok=True)
    with _locked(aside, output):
        try:
            if replaced.exists() and not output.exists():  # killed between the two renames below
                replaced.rename(output)
            for left in (replaced, *aside.iterdir()):
                _remove(left)
            yield aside
            _flush(aside)
            if output.exists() and any(output.iterdir()):
                if not overwrite:
                    raise UserError(f'{output} is there already; choose another --output or give --overwrite')
                output.rename(replaced)
            aside.rename(output)
            _remove(replaced)
        except BaseException:
            _remove(aside)
            raise


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


def _flush(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for path in (*(os.path.join(parent, name) for name in names), parent):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
