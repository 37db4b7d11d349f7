"""The page's own files, read once at the start: no path of a request ever becomes a path of the disk."""

from __future__ import annotations

from importlib import resources

_KINDS = {
    '.html': 'text/html; charset=utf-8',
    '.css': 'text/css; charset=utf-8',
    '.js': 'text/javascript; charset=utf-8',
    '.svg': 'image/svg+xml',
}


def load_files() -> dict[str, tuple[bytes, str]]:
    """Content and type by path; index.html is /."""
    files = {}
    for file in (resources.files(__package__) / 'page').iterdir():
        kind = _KINDS.get(file.name[file.name.rfind('.') :])
        if kind:
            files['/' if file.name == 'index.html' else f'/{file.name}'] = file.read_bytes(), kind
    return files
