"""Packed models: the members of an ensemble in one .safetensors file, with what reading faces takes.

The header's `fer_jax` is JSON: `schema`, `runs` (name and config.json of each), `members` (run and step of each),
`temperature`, `tta`, `sha256` of the tensors, and `scores` as measured. A tensor's name is MEMBER/params/Conv_0/kernel.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fer_jax import run_json
from fer_jax.data.preprocess import VIEWS
from fer_jax.errors import UserError

SUFFIX = '.safetensors'
_SCHEMA = 1
_KEPT = (
    'config',
    'preprocessing',
    'manifest',
    'manifest_hash',
    'model_summary',
    'versions',
    'devices',
    'git_revision',
    'teachers',
)


@dataclasses.dataclass(frozen=True)
class Packed:
    """The header of a packed model.

    Attributes:
        path: of the file.
        runs: as trained; `workdir` is FILE:NAME.
        members: of each the index of its run, and its step.
        temperature: by which logits are divided.
        tta: the test-time augmentation that temperature and scores belong to.
        scores: by split, as in scores.json, with the temperature.
    """

    path: str
    runs: tuple[run_json.RunDescription, ...]
    members: tuple[tuple[int, int], ...]
    temperature: float
    tta: str
    scores: dict[str, Any]


def is_packed(path: str) -> bool:
    """Whether that names a packed model, and no workdir."""
    return path.endswith(SUFFIX) and not os.path.isdir(path)


def write_packed(
    path: str,
    runs: Sequence[tuple[str, Mapping[str, Any]]],
    members: Sequence[tuple[int, int, Any]],
    *,
    temperature: float,
    tta: str,
    scores: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes a packed model, aside first.

    Args:
        path: ends in .safetensors.
        runs: name, unlike all others', and config.json of each.
        members: index of the run, step, variables.
        temperature, tta, scores: see `Packed`.

    Returns:
        Its header.
    """
    tensors = {
        f'{index}/{name}': np.asarray(array)
        for index, (_, _, variables) in enumerate(members)
        for name, array in flax.traverse_util.flatten_dict(jax.device_get(variables), sep='/').items()
    }
    header = {
        'schema': _SCHEMA,
        'runs': [
            {'name': name, 'config.json': {key: described[key] for key in _KEPT if key in described}}
            for name, described in runs
        ],
        'members': [[run, step] for run, step, _ in members],
        'temperature': temperature,
        'tta': tta,
        'sha256': _digest(tensors),
        'scores': dict(scores),
    }
    with open(path + '.partial', 'wb') as file:  # save_file hides what the system says
        file.write(save(tensors, {'fer_jax': json.dumps(header)}))
    os.replace(path + '.partial', path)
    return header


@functools.lru_cache(maxsize=4)
def _read_file(path: str, modified: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    del modified  # of the key alone
    with safe_open(path, 'numpy') as file:
        header = json.loads((file.metadata() or {})['fer_jax'])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    if header['schema'] != _SCHEMA:
        raise ValueError(f'schema {header["schema"]}, where {_SCHEMA} is read')
    if header['sha256'] != _digest(tensors):
        raise ValueError('its parameters are not those that were written')
    return header, tensors


def read_packed(path: str) -> Packed:
    """Reads a packed model; every parameter is checked against the header's hash.

    Raises:
        UserError: if it is not there, damaged, or no packed model.
    """
    header, _ = _read(path)
    try:
        runs = tuple(
            dataclasses.replace(
                run_json.understand_run(f'{path}:{run["name"]}', run['config.json']),
                temperature=float(header['temperature']),
                packed_hash=str(header['sha256']),
            )
            for run in header['runs']
        )
        members = tuple((int(run), int(step)) for run, step in header['members'])
        if not members or not all(0 <= run < len(runs) for run, _ in members) or header['tta'] not in VIEWS:
            raise ValueError('its members or its views')
        if len({run.workdir for run in runs}) < len(runs):
            raise ValueError('two of its runs have one name')
        return Packed(path, runs, members, float(header['temperature']), header['tta'], dict(header['scores']))
    except (ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        raise _refusal(path, error) from None


def read_variables(path: str, index: int, target: Any) -> Any:
    """The variables of one member, as they were written, where the target wants them.

    Args:
        index: of the member.
        target: `jax.ShapeDtypeStruct`s with shardings.

    Raises:
        UserError: if the file is damaged, or holds the variables of another network.
    """
    _, tensors = _read(path)
    wanted = flax.traverse_util.flatten_dict(target, sep='/')
    found = {}
    for name, shape in wanted.items():
        array = tensors.get(f'{index}/{name}')
        if array is None or array.shape != shape.shape:
            raise _refusal(path, f'it lacks {name} of shape {shape.shape}')
        found[name] = jax.device_put(array.astype(shape.dtype), shape.sharding)
    return flax.traverse_util.unflatten_dict(found, sep='/')


def _read(path: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        return _read_file(path, os.stat(path).st_mtime_ns)
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror or error}') from None
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _refusal(path, error) from None


def _refusal(path: str, error: object) -> UserError:
    return UserError(
        f'{path} is damaged or no packed model ({str(error)[:120]}); '
        'fer_jax.pack writes one, or name the workdir of a run'
    )


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f'{name} {array.dtype.str} {array.shape}\n'.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
