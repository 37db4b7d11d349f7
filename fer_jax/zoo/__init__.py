"""The model in the box: a packed classifier of our own, and its card. See docs/zoo.md."""

from __future__ import annotations

from pathlib import Path

DEFAULT = str(Path(__file__).parent / 'fer2013.safetensors')
