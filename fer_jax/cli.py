"""What every command shares: flags that refuse what they do not know, and errors as one line with an exit code."""

from __future__ import annotations

import argparse
import difflib
import errno
import os
import sys
from collections.abc import Callable

from fer_jax.errors import UserError
from fer_jax.parents import end_with_parent


class ArgumentParser(argparse.ArgumentParser):
    """argparse, but a stray word or a misspelt flag ends with one line that names the nearest right one."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, **kwargs)

    def parse_args(self, args=None, namespace=None):
        args = sys.argv[1:] if args is None else args
        # Before argparse complains of what is missing: a misspelt flag is the likelier reason.
        for word in args:
            if word.startswith('--') and word.split('=')[0] not in self._option_string_actions:
                self.error(self._unknown(word))
        positional = any(not action.option_strings for action in self._actions)
        parse = self.parse_known_intermixed_args if positional else self.parse_known_args
        parsed, unknown = parse(args, namespace)
        if unknown:
            self.error(self._unknown(unknown[0]))
        return parsed

    def _unknown(self, word: str) -> str:
        known = [option for option in self._option_string_actions if option.startswith('--')]
        if not word.startswith('-'):
            return f'stray word {word!r}; flags are written --name=value ({", ".join(known)})'
        close = difflib.get_close_matches(word.split('=')[0], known, 1)
        return f'unknown flag {word!r}; ' + (f'did you mean {close[0]}?' if close else f'known: {", ".join(known)}')

    def error(self, message: str):
        raise UserError(message)


def run(main: Callable[[], int | None]) -> None:
    """Runs a command's `main` and exits: 0 done, 1 the machine failed, 2 bad input, 130 interrupted."""
    end_with_parent()
    try:
        sys.exit(main() or 0)
    except Exception as error:
        _exit(error)
    except KeyboardInterrupt as error:
        _exit(error)


def _exit(error: BaseException) -> None:
    explained = explain(error)
    if explained is None:
        raise error
    code, line = explained
    print(f'{command_name()}: {line}', file=sys.stderr)
    sys.exit(code)


def command_name() -> str:
    """As it is called, such as fer_jax.train."""
    return 'fer_jax.' + os.path.splitext(os.path.basename(sys.argv[0]))[0]


def explain(error: BaseException) -> tuple[int, str] | None:
    """The exit code and the line for what can go wrong without a fault of the program; None for anything else."""
    if isinstance(error, UserError):
        return 2, f'error: {error}'
    if isinstance(error, KeyboardInterrupt):
        return 130, 'interrupted'
    # RESOURCE_EXHAUSTED is JAX's word for it.
    if isinstance(error, MemoryError) or isinstance(error, RuntimeError) and 'RESOURCE_EXHAUSTED' in str(error):
        return 1, 'error: out of memory; lower the batch size or the image size'
    line = _os_error_line(error) if isinstance(error, OSError) else None
    return None if line is None else (1, f'error: {line}')


def _os_error_line(error: OSError) -> str | None:
    where = f' ({error.filename})' if error.filename else ''
    return {
        errno.ENOSPC: f'no space left on the disk{where}; free some and run the same command again',
        errno.EDQUOT: f'disk quota exceeded{where}; free some and run the same command again',
        errno.EACCES: f'permission denied{where}; choose a place you can read and write',
        errno.EROFS: f'read-only file system{where}; choose a place you can write',
        errno.ENOTDIR: f'not a directory{where}',
        errno.ENOENT: f'no such file or directory{where}',
        errno.EISDIR: f'is a directory{where}; a file is wanted',
        errno.EEXIST: f'already exists{where}',
    }.get(error.errno)
