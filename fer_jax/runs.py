"""Whether a directory holds the finished run that is wanted, judged by the files in it and without JAX."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fer_jax.config import default_config, flatten
from fer_jax.data.change_files import rewritten_file
from fer_jax.data.dataset import Dataset
from fer_jax.errors import UserError
from fer_jax.evaluation import folds as fold_files
from fer_jax.evaluation.scores import read_scores

_FREE = ('evaluation.splits', 'data.feed')  # of a finished run: what it was read on is seen in its scores


def read_scores_if_any(workdir: Path) -> dict[str, Any]:
    """`scores.json` of a directory, {} where there is none."""
    path = workdir / 'scores.json'
    return read_scores(path) if path.exists() else {}


def read_description(workdir: Path) -> dict[str, Any]:
    """`config.json` of a run.

    Raises:
        UserError: if it cannot be read.
    """
    path = workdir / 'config.json'
    try:
        described = json.loads(path.read_text(encoding='utf-8'))
        ConfigDict(described['config'])
        for name in ('manifest_hash', 'devices'):
            described[name]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f'{path} cannot be read ({error!r}); is it the config.json of a training run?') from None
    return described


def finished(workdir: Path, config: ConfigDict, wanted_by: str) -> dict[str, Any]:
    """The scores of a run, if it is the one that `config` describes and has all its splits read; else {}.

    Args:
        wanted_by: who wants it, for messages, such as `row 'VGG19'`.

    Raises:
        UserError: if the directory holds a finished run of another configuration or other data.
    """
    scores = read_scores_if_any(workdir)
    if not scores or not all(split in scores for split in config.evaluation.splits):
        return {}
    described = read_description(workdir)
    for name, found, value in other_fields(described['config'], config):
        if name not in _FREE:
            raise UserError(
                f'{workdir} was trained with config.{name}={found!r}; {wanted_by} now has {value!r}: '
                'move that directory away, or choose another'
            )
    manifest = os.path.join(config.data.name, 'manifest.json')
    if os.path.exists(manifest):
        with open(manifest) as file:
            now = Dataset('', (), {}, json.load(file)).manifest_hash
        if now != described['manifest_hash']:
            raise UserError(f'{workdir} was trained on other data than {config.data.name} now holds; move it away')
    rewritten = rewritten_file(described.get('manifest', {}).get('changes', {}))
    if rewritten:
        raise UserError(f'{workdir} was trained with another {rewritten}, which has changed since; move it away')
    return scores


def other_fields(there: Mapping[str, Any], config: ConfigDict) -> Iterator[tuple[str, Any, Any]]:
    """The fields of a configuration that another one, as JSON has it, has otherwise: name, value there, value here."""
    # One from before a field was there is as one with the field's default.
    before = flatten(default_config()) | flatten(ConfigDict(there))
    for name, value in flatten(config).items():
        found = tuple(before[name]) if isinstance(before[name], list) else before[name]
        if found != value:
            yield name, found, value


def fold_config(config: ConfigDict, fold: int) -> ConfigDict:
    """The configuration of one fold's run: that fold is tested; its validation, if it has one, is scored too."""
    config = ConfigDict(config.to_dict())
    config.data.fold = fold
    config.evaluation.splits = ('validation', 'test') if config.data.fold_validation else ('test',)
    return config.lock()


def finished_fold(workdir: Path, config: ConfigDict, fold: int, wanted_by: str) -> dict[str, Any]:
    """`finished`, of one fold of the cross-validation in `workdir`."""
    return finished(fold_files.fold_directory(workdir, fold), fold_config(config, fold), wanted_by)


def finished_folds(workdir: Path, config: ConfigDict, wanted_by: str) -> dict[str, Any]:
    """`folds.json` of a cross-validation, if it is the one that `config` describes and all of it is done; else {}.

    Raises:
        UserError: if a fold's directory holds a finished run of another configuration or other data.
    """
    scores = [finished_fold(workdir, config, fold, wanted_by) for fold in range(config.data.folds)]
    path = Path(workdir) / fold_files.FOLDS_JSON
    if not all(scores) or not path.exists():
        return {}
    folds = fold_files.read_folds_json(workdir)
    written = [fold['single']['accuracy'] for fold in folds['folds']]
    return folds if written == [entry['test']['single']['accuracy'] for entry in scores] else {}
