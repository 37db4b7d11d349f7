"""A run's own description on disk, its config.json: how it was called, on what, with which versions and data."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import subprocess
import sys
from typing import Any

import jax
from ml_collections import ConfigDict

from fer_jax.config import default_config, flatten, set_field
from fer_jax.data.dataset import Dataset, class_counts
from fer_jax.data.preprocess import Preprocessing
from fer_jax.errors import UserError

_MOVED = {'data.synthetic.noise_rate': 'data.noise.rate'}  # fields of older runs
_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


def describe(config: ConfigDict | None, dataset: Dataset, **more: Any) -> dict[str, Any]:
    """What config.json says besides: how it was called, on what, with which versions and data."""
    devices = jax.devices()
    counts = {name: class_counts(split.labels, dataset.class_names) for name, split in dataset.splits.items()}
    return {
        'config': config.to_dict() if config is not None else {},
        'command': ' '.join([_command(sys.argv[0]), *sys.argv[1:]]),
        'seed': config.seed if config is not None else None,
        'versions': {'python': sys.version.split()[0]} | {name: importlib.metadata.version(name) for name in _PACKAGES},
        'devices': {'count': len(devices), 'platform': devices[0].platform, 'kind': devices[0].device_kind},
        'manifest': {**dataset.manifest, 'class_names': list(dataset.class_names), 'counts': counts},
        'manifest_hash': dataset.manifest_hash,
        'git_revision': _git_revision(),
        **more,
    }


@dataclasses.dataclass(frozen=True)
class RunDescription:
    """A run's config.json, read back.

    Attributes:
        workdir: where it lies.
        config: as it was trained.
        preprocessing: as it was trained.
        class_names: K names in the order of the logits.
        manifest_hash: of its data.
        changes: what was made of its training split; see `fer_jax.data.change_files`.
        align: how `prepare --align` brought its faces to one place (detector, size, …); None: pictures as they were.
        summary: parameters and operations.
        temperature: by which logits are divided; 1 but in a packed model.
        packed_hash: of the parameters of the packed model that holds it; '' of a workdir.
    """

    workdir: str
    config: ConfigDict
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    manifest_hash: str
    changes: dict[str, Any]
    align: dict[str, Any] | None
    summary: dict[str, float | int]
    temperature: float = 1.0
    packed_hash: str = ''


def read_run(workdir: str) -> RunDescription:
    """Reads a run's config.json.

    Raises:
        UserError: if there is none, or it is not one.
    """
    path = os.path.join(workdir, 'config.json')
    try:
        with open(path) as file:
            return understand_run(workdir, json.load(file))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f'{workdir} is no run: it has no config.json') from None
    except (ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(f'{path} cannot be read ({error}); is it the config.json of a training run?') from None


def understand_run(workdir: str, described: dict[str, Any]) -> RunDescription:
    """A config.json's content as a run's description.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, UserError: if it is no such content.
    """
    config = default_config()
    for name, value in flatten(ConfigDict(described['config'])).items():
        set_field(config, _MOVED.get(name, name), value)
    return RunDescription(
        workdir=workdir,
        config=config.lock(),
        preprocessing=Preprocessing(**described['preprocessing']),
        class_names=tuple(described['manifest']['class_names']),
        manifest_hash=described['manifest_hash'],
        changes=described['manifest'].get('changes', {}),
        align=described['manifest'].get('align'),
        summary=described['model_summary'],
    )


def write_json(path: str, content: dict[str, Any]) -> None:
    """Writes a JSON file aside and renames it into place."""
    with open(path + '.partial', 'w') as file:
        json.dump(content, file, indent=2)
    os.replace(path + '.partial', path)


def _command(file: str) -> str:
    """`python -m fer_jax.train`, `python benchmarks/audit.py`, or the name of a file that lies elsewhere."""
    package = os.path.dirname(os.path.abspath(__file__))
    path = os.path.relpath(os.path.abspath(file), os.path.dirname(package))
    if path.startswith('fer_jax' + os.sep):
        return 'python -m ' + os.path.splitext(path)[0].replace(os.sep, '.')
    return 'python ' + (os.path.basename(file) if path.startswith('..') else path)


def _git_revision() -> str | None:
    folder = os.path.dirname(os.path.abspath(__file__))
    git = ['git', '-C', folder, 'describe', '--always', '--dirty', '--abbrev=12']
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
