"""A web page that reads faces: pictures, camera and screen; and its API.

    python -m fer_jax.serve [--run=DIR[,DIR…]] [--port=8000] [--in-browser]

Everything is compiled before it listens; with --in-browser everything is written as ONNX, and the page reads pictures
itself. Ctrl-C or SIGTERM lets running requests end. A token that clients must know
comes from --token-file or the variable FER_JAX_SERVE_TOKEN. Limits, headers, the API: docs/serve.md.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import ipaddress
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import skimage.data
from PIL import Image

from fer_jax import browser_models, cli, exported, onnx_files, runtime
from fer_jax.apps.web.in_browser import InBrowser
from fer_jax.data.files import printable
from fer_jax.data.pixels import decode_picture
from fer_jax.data.preprocess import VIEWS
from fer_jax.errors import UserError
from fer_jax.recognizer import Recognizer

_PACKAGES = ('starlette', 'uvicorn', 'python_multipart', 'prometheus_client')
_TOKEN = 'FER_JAX_SERVE_TOKEN'
_LEAST_TOKEN = 16


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags and serves until it is stopped; see the module."""
    flags = _parser().parse_args(argv)
    _check(flags)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        serve(flags)
    except KeyboardInterrupt:
        print('fer_jax.serve: stopped', file=sys.stderr)
    return 0


def serve(flags: argparse.Namespace) -> None:
    """Loads, compiles, listens."""
    from fer_jax.apps.web.answers import Limits
    from fer_jax.apps.web.app import Service
    from fer_jax.apps.web.running import Server

    token = _token(flags.token_file)
    limits = Limits(flags.max_bytes, flags.max_pixels, flags.max_faces, flags.max_seconds, flags.max_requests)
    with _bind(flags.host, flags.port) as listener:  # before all else: a port that is taken is said at once
        runtime.configure()
        began = time.monotonic()
        read, *about, local = _for_browsers(flags) if flags.in_browser else _recognizer(flags)
        done = 'Written for browsers' if local else 'Compiled'
        print(f'{done} in {time.monotonic() - began:.0f} s: {", ".join(about[1])}')
        service = Service(read, *about, flags.threshold, flags.smoothing, token, limits, local)
        say = lambda: _say_where(flags.host, listener.getsockname()[1], bool(token))
        Server(service, say, flags.access_log).run(sockets=[listener])


def _runs(flags: argparse.Namespace) -> Sequence[str]:
    return flags.run.split(',') if flags.run else ()


def _recognizer(flags: argparse.Namespace) -> tuple[Recognizer, Sequence[str], Sequence[str], None]:
    """What reads, warm: all is compiled and a picture read, since libraries put things off until their first use."""
    recognizer = Recognizer(
        _runs(flags),
        last=flags.last,
        tta=flags.tta,
        threshold=flags.threshold,
        min_face=flags.min_face,
        landmarks=flags.landmarks,
        most_faces=flags.max_faces + 1,  # one more tells that there are more
    )
    recognizer.warm_up()
    file = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(file, 'JPEG')
    recognizer(decode_picture(file.getvalue()))
    return recognizer, recognizer.class_names, recognizer.members, None


def _for_browsers(flags: argparse.Namespace) -> tuple[None, Sequence[str], Sequence[str], InBrowser]:
    classifiers = exported.load_classifiers(_runs(flags), flags.last, flags.tta)
    members = [member for classifier in classifiers for member in classifier.description['members']]
    names = [f'{member["run"]}@{member["step"]}' for member in members]
    local = browser_models.make_in_browser(classifiers, flags.min_face)
    return None, classifiers[0].description['class_names'], names, local


def _parser() -> cli.ArgumentParser:
    parser = cli.ArgumentParser(prog='python -m fer_jax.serve', description='A web page that reads faces, and its API.')
    add = parser.add_argument
    add('--run', metavar='DIR[,DIR…]', help='workdirs of training runs or packed models, averaged (default: our own)')
    add('--last', type=int, default=0, metavar='N', help="each run's last N members; default: its best")
    add('--tta', choices=tuple(VIEWS), help='test-time augmentation (default: as a packed model was scored, or none)')
    add('--threshold', type=float, default=0.5, metavar='P', help='under this probability an emotion is unsure (0.5)')
    add('--min-face', type=float, default=20, metavar='N', help='side in pixels of the smallest face (20)')
    add('--landmarks', type=Path, metavar='PATH', help="dlib's predictor, for runs whose data was aligned by dlib")
    add('--smoothing', type=float, default=0.5, metavar='S', help='of live pictures: time constant in seconds (0.5)')
    add('--in-browser', action='store_true', help='the page reads pictures itself; none leave the machine it runs on')
    add('--host', default='127.0.0.1', help='address to listen at (127.0.0.1: this machine alone; 0.0.0.0: all)')
    add('--port', type=int, default=8000, help='port to listen at (8000; 0: any free one)')
    add('--max-bytes', type=int, default=16_000_000, metavar='N', help='of an upload (16,000,000)')
    add('--max-pixels', type=int, default=64_000_000, metavar='N', help='of a picture (64,000,000)')
    add('--max-faces', type=int, default=64, metavar='N', help='read in a picture, the surest (64)')
    add('--max-seconds', type=float, default=20, metavar='S', help='from request to answer (20)')
    add('--max-requests', type=int, default=8, metavar='N', help='at once; others are asked to come again (8)')
    add('--token-file', type=Path, metavar='PATH', help=f'the token that clients must know (or the variable {_TOKEN})')
    add('--access-log', action='store_true', help='a line for each request')
    return parser


def _check(flags: argparse.Namespace) -> None:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"the page needs {', '.join(missing)}; install it with: pip install 'fer_jax[serve]'")
    if flags.in_browser:
        onnx_files.check_packages()
        if flags.landmarks:
            raise UserError('--landmarks is for dlib, which no browser has; leave it or --in-browser out')
        if not flags.min_face >= 12:
            raise UserError(f'--min-face={flags.min_face:g}: the smallest face that can be found has 12 pixels')
        if not 0 <= flags.threshold <= 1:
            raise UserError(f'--threshold={flags.threshold:g} is no probability; it can be 0 to 1')
    if flags.run is not None and not all(flags.run.split(',')):
        raise UserError(f'--run={flags.run}: there is an empty name between the commas')
    if not 0 <= flags.port <= 65535:
        raise UserError(f'--port={flags.port}: ports are 0 to 65535')
    if not 0 <= flags.smoothing < float('inf'):
        raise UserError(f'--smoothing={flags.smoothing}: seconds are wanted, 0 or more')
    if not 0 < flags.max_seconds < float('inf'):
        raise UserError(f'--max-seconds={flags.max_seconds:g}: more than 0 is wanted')
    for name in ('max_bytes', 'max_pixels', 'max_faces', 'max_requests'):
        if getattr(flags, name) < 1:
            raise UserError(f'--{name.replace("_", "-")}={getattr(flags, name)}: 1 or more is wanted')


def _token(path: Path | None) -> str:
    """The token, '' for none."""
    token = os.environ.get(_TOKEN, '')
    if path is not None:
        try:
            token = path.read_text(encoding='utf-8').strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, 'strerror', None) or 'it is no text'
            raise UserError(f'--token-file={printable(path)} cannot be read: {reason}') from None
    if (path is not None or token) and not (len(token) >= _LEAST_TOKEN and token.isascii() and token.isprintable()):
        raise UserError(
            f'the token is too short or holds odd characters; {_LEAST_TOKEN} or more plain ones are wanted, as by: '
            'openssl rand -hex 32'
        )
    return token


@contextlib.contextmanager
def _bind(host: str, port: int):
    """The socket, bound but not yet listening."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise UserError(
            f'--host={host} is no address of this machine; 127.0.0.1 and 0.0.0.0 are the usual ones'
        ) from None
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise UserError(
                f'cannot listen at {host}:{port}: {error.strerror}; choose another --port or --host'
            ) from None
        yield listener


def _say_where(host: str, port: int, with_token: bool) -> None:
    try:
        inside = ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = host == 'localhost'
    if not inside and not with_token:
        print(f'fer_jax.serve: who reaches {host}:{port} may use it; a token keeps others out', file=sys.stderr)
    shown = f'[{host}]' if ':' in host else host
    print(f'Listening at http://{shown}:{port}', flush=True)


if __name__ == '__main__':
    cli.run(main)
