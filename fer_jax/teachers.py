"""`config.train.teachers`: trained networks whose probabilities another one learns (Hinton et al. 2015).

At every step they read the very images that the learner sees, as augmented and mixed as those are (Beyer et al. 2022,
"A good teacher is patient and consistent"), and their mean probability is the target. Their parameters lie in the
learner's state, on the devices, and in none of its checkpoints.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from fer_jax import distributed, run_json
from fer_jax.data.dataset import Dataset
from fer_jax.data.preprocess import Preprocessing
from fer_jax.errors import UserError
from fer_jax.members import Member, choose_members, find_runs, group_members, load_group
from fer_jax.packed import is_packed
from fer_jax.training.classify import Teacher

# Of config.data: these do not change which images are dealt into a fold or a cut.
_HARMLESS = ('name', 'size', 'channels', 'soft_labels', 'feed', 'order_seed', 'extra', 'normalize', 'crop')


@dataclasses.dataclass(frozen=True)
class Teachers:
    """Members of one run or several, loaded.

    Attributes:
        networks: one for each group of members that stack.
        variables: of each group the members' variables on the host, with a leading axis M.
        told: for config.json, of each member its run, step and the SHA-256 of its variables.
    """

    networks: tuple[Teacher, ...]
    variables: tuple[Any, ...]
    told: tuple[dict[str, Any], ...]


NOBODY = Teachers((), (), ())


def load_teachers(config: ConfigDict, dataset: Dataset, preprocessing: Preprocessing) -> Teachers:
    """Loads what `config.train.teachers` names; of a run its own ensemble, as `config.evaluation.last` of it says.

    Raises:
        UserError: if one is missing, or has other classes, another input, other data or another cut of them.
    """
    members = [member for source in find_runs(config.train.teachers) for member in _members(source)]
    for run in {member.run.workdir: member.run for member in members}.values():
        _refuse_unfit(run, config, dataset, preprocessing)
    groups = group_members(members, ('class_names', 'manifest_hash'), lambda run: '')
    loaded = [load_group(group) for group in groups]
    told = [one for group, (_, variables) in zip(groups, loaded, strict=True) for one in _told(group, variables)]
    distributed.require_same('their teachers', repr(told))
    return Teachers(
        networks=tuple(
            _teacher(model, group[0].run, preprocessing) for group, (model, _) in zip(groups, loaded, strict=True)
        ),
        variables=jax.device_get(tuple(variables for _, variables in loaded)),
        told=tuple(told),
    )


def refuse_other_teachers(teachers: Teachers, workdir: str) -> None:
    """Refuses a run whose teachers are not those that it began with.

    Raises:
        UserError: naming the first that is another, or missing.
    """
    with open(os.path.join(workdir, 'config.json')) as file:
        before = json.load(file).get('teachers', [])
    for there, now in itertools.zip_longest(before, teachers.told):
        if there != now:
            was, is_now = (f'{of["run"]}@{of["step"]}' if of else 'nobody' for of in (there, now))
            raise UserError(
                f'{workdir} was taught by {was}, in whose place is {is_now}, perhaps trained anew; '
                'choose another --workdir'
            )


def _members(source: str) -> list[Member]:
    return choose_members(source, 0 if is_packed(source) else run_json.read_run(source).config.evaluation.last)


def _refuse_unfit(
    run: run_json.RunDescription, config: ConfigDict, dataset: Dataset, preprocessing: Preprocessing
) -> None:
    name = f'config.train.teachers names {run.workdir}, which'
    if run.class_names != dataset.class_names:
        raise UserError(f'{name} knows {", ".join(run.class_names)}; this run has {", ".join(dataset.class_names)}')
    if run.manifest_hash != dataset.manifest_hash:
        raise UserError(
            f'{name} was trained on other data (manifest {run.manifest_hash}; here {dataset.manifest_hash}): it may '
            'have learned what is validation or test here'
        )
    here, there = _dealt(config.data, dataset.manifest.get('changes', {})), _dealt(run.config.data, run.changes)
    differ = [field for field in here if here[field] != there[field]]
    if differ and any(of['folds'] or of['resplit'] for of in (here, there)):
        raise UserError(
            f'{name} was trained on another cut of the same data (config.data.{differ[0]} differs): it may have '
            'learned what is validation or test here'
        )
    if config.data.remove_twins != 'none' and run.config.data.remove_twins == 'none':
        raise UserError(
            f'{name} was trained on twins of evaluation images, which config.data.remove_twins keeps out here'
        )
    seen, wanted = (_input(how) for how in (run.preprocessing, preprocessing))
    if seen != wanted:
        raise UserError(f'{name} sees {seen}; this run sees {wanted}, and both look at the same images')


def _dealt(data: ConfigDict, changes: dict[str, Any]) -> dict[str, Any]:
    """What decides which images are trained on where there are folds or cuts."""
    dealt = {name: value for name, value in data.to_dict().items() if name not in _HARMLESS}
    kept = {name: change for name, change in changes.items() if name != 'extra'}
    return dealt | {'exclude': json.loads(json.dumps(kept))}  # with the hashes of the files, as config.json has them


def _input(how: Preprocessing) -> str:
    return f'{how.input_side} of {how.size} pixels, {how.channels} channel(s), normalised by {how.normalize}'


def _teacher(model: nn.Module, run: run_json.RunDescription, learner: Preprocessing) -> Teacher:
    own = run.preprocessing
    if own.normalize == 'image':
        return Teacher(model, run.temperature)
    scale, shift = learner.deviation / own.deviation, (learner.mean - own.mean) / own.deviation
    return Teacher(model, run.temperature, scale, shift)


def _told(group: Sequence[Member], variables_M: Any) -> list[dict[str, Any]]:
    arrays = [np.asarray(array) for array in jax.tree.leaves(variables_M)]
    hashes = [hashlib.sha256(b''.join(array[index].tobytes() for array in arrays)) for index in range(len(group))]
    return [
        {'run': member.run.workdir, 'step': member.step, 'sha256': found.hexdigest()}
        for member, found in zip(group, hashes, strict=True)
    ]
