"""onnxruntime-web, which runs networks in browsers: fetched once from npm, checked by its hashes, kept in a cache.

    npm pack onnxruntime-web@1.30.0

It is no part of this project and not copied into it. npm's file may also be put into the cache by hand.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from fer_jax.data.files import printable
from fer_jax.errors import UserError

VERSION = '1.30.0'
_PACKAGE = f'onnxruntime-web-{VERSION}.tgz'
_SECONDS = 600
# SHA-256 of the three files of the package that are served: the module, and the runtime with SIMD and threads.
HASHES = {
    'ort.wasm.min.mjs': '219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b',
    'ort-wasm-simd-threaded.mjs': 'e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b',
    'ort-wasm-simd-threaded.wasm': '3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2',
}


def load_runtime(cache: Path | None = None) -> dict[str, bytes]:
    """The files by name, out of the cache, or fetched by npm into it.

    Args:
        cache: the directory; None: `fer_jax` in the user's cache.

    Raises:
        UserError: if they are not there and npm cannot fetch them, or they are not the ones that are known.
    """
    cache = cache or Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'fer_jax'
    kept = cache / f'onnxruntime-web-{VERSION}'
    try:
        return {name: _checked(name, (kept / name).read_bytes(), kept / name) for name in HASHES}
    except FileNotFoundError:
        pass
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='onnxruntime-web.', dir=cache) as aside:
        package = cache / _PACKAGE if (cache / _PACKAGE).exists() else _fetch(Path(aside), cache)
        files = _unpack(package)
        whole = Path(aside) / 'files'
        whole.mkdir()
        for name, content in files.items():
            (whole / name).write_bytes(content)
        shutil.rmtree(kept, ignore_errors=True)
        os.replace(whole, kept)
    return files


def _fetch(folder: Path, cache: Path) -> Path:
    by_hand = f'put the file of `npm pack onnxruntime-web@{VERSION}` into {printable(cache)}'
    npm = shutil.which('npm')
    if npm is None:
        raise UserError(f'--in-browser needs onnxruntime-web {VERSION}: install npm, which fetches it, or {by_hand}')
    print(f'onnxruntime-web {VERSION} is fetched by npm, once', flush=True)
    command = [npm, 'pack', f'onnxruntime-web@{VERSION}', '--loglevel=error', '--ignore-scripts']
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS)
        reason = (done.stderr or done.stdout).strip().splitlines() if done.returncode else []
    except subprocess.TimeoutExpired:
        reason = [f'nothing within {_SECONDS} s']
    if reason or not (folder / _PACKAGE).exists():
        words = printable((reason or ['no package came'])[0].removeprefix('npm error '))
        raise UserError(f'npm could not fetch onnxruntime-web {VERSION} ({words}); try again, or {by_hand}')
    return folder / _PACKAGE


def _unpack(package: Path) -> dict[str, bytes]:
    files = {}
    try:
        with tarfile.open(package) as archive:
            for name in HASHES:
                member = archive.extractfile(f'package/dist/{name}')
                files[name] = _checked(name, member.read(), package)
    except (tarfile.TarError, EOFError, OSError, KeyError, AttributeError):
        raise UserError(f'{printable(package)} is not the package onnxruntime-web {VERSION}; remove it') from None
    return files


def _checked(name: str, content: bytes, path: Path) -> bytes:
    if hashlib.sha256(content).hexdigest() != HASHES[name]:
        raise UserError(f'{printable(path)}: {name} is not that of onnxruntime-web {VERSION}; remove {printable(path)}')
    return content
