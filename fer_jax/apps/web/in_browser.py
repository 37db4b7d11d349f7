"""What a server gives browsers that read pictures themselves: networks, what runs them, and how."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fer_jax.apps.web.onnxruntime_web import VERSION

_FOLDER = f'/onnxruntime-web-{VERSION}'
_MODELS = '/api/networks'
_KINDS = {'mjs': 'text/javascript; charset=utf-8', 'wasm': 'application/wasm'}


@dataclasses.dataclass(frozen=True, eq=False)
class InBrowser:
    """All that the page's worker needs.

    models: ONNX files by name: `pnet`, `rnet`, `onet`, and those in `networks`.
    networks: of each classifier, by its model's name: `frame`, `size`, `channels`, `members` (a count).
    look: the detector's settings, as `fer_jax.faces.mtcnn.Settings` has them.
    template: the five points of an upright face.
    emoji: of the classes.
    runtime: the files of onnxruntime-web by name.
    """

    models: Mapping[str, bytes]
    networks: Mapping[str, Mapping[str, Any]]
    look: Mapping[str, Any]
    template: list[list[float]]
    emoji: list[str]
    runtime: Mapping[str, bytes]

    def about(self) -> dict[str, Any]:
        """What /api/model says of it; addresses are relative to the page's."""
        module = next(name for name in self.runtime if name.startswith('ort.'))
        parts = {name.rsplit('.', 1)[-1]: f'{_FOLDER[1:]}/{name}' for name in self.runtime if name != module}
        return {
            'runtime': {'module': f'{_FOLDER[1:]}/{module}', **parts},
            'models': {name: f'{_MODELS[1:]}/{name}.onnx' for name in self.models},
            'networks': self.networks,
            'detector': {'look': self.look, 'template': self.template},
            'emoji': self.emoji,
        }

    def runtime_files(self) -> dict[str, tuple[bytes, str]]:
        """Content and type by path, of what is no secret."""
        return {
            f'{_FOLDER}/{name}': (content, _KINDS[name.rsplit('.', 1)[-1]]) for name, content in self.runtime.items()
        }

    def model_files(self) -> dict[str, tuple[bytes, str]]:
        """Content and type by path, of the networks, which a token guards."""
        kind = 'application/octet-stream'
        return {f'{_MODELS}/{name}.onnx': (content, kind) for name, content in self.models.items()}
