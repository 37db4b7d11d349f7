"""The members of ensembles: checkpoints of one run or several, chosen, grouped by what stacks, and loaded."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fer_jax import experiment, run_json
from fer_jax.errors import UserError
from fer_jax.evaluation.inference import stack_members
from fer_jax.models.initial import variable_shapes
from fer_jax.packed import Packed, is_packed, read_packed, read_variables
from fer_jax.training.account import ENDED_JSON
from fer_jax.training.checkpoints import Checkpoints

ENSEMBLE_JSON = 'ensemble.json'  # of seeds that were trained together, beside their runs


@dataclasses.dataclass(frozen=True)
class Member:
    """One checkpoint of a run."""

    run: run_json.RunDescription
    step: int
    packed: tuple[str, int] | None = None  # the packed model that holds it, and its place there

    @property
    def name(self) -> str:
        """For people: `run_seed0@1000`."""
        return f'{os.path.basename(os.path.abspath(self.run.workdir))}@{self.step}'


def member_directory(workdir: str, seed: int) -> str:
    """Where a member's run lies."""
    return os.path.join(workdir, f'seed{seed}')


def read_seeds(workdir: str) -> list[int]:
    """Of the members that lie in a directory; [] where it is no ensemble's.

    Raises:
        UserError: if its ensemble.json cannot be read.
    """
    path = os.path.join(workdir, ENSEMBLE_JSON)
    if not os.path.exists(path):
        return []
    try:
        with open(path) as file:
            return [int(seed) for seed in json.load(file)['seeds']]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path} cannot be read ({error!r}); launch the ensemble again, or remove it') from None


def find_runs(workdirs: Sequence[str]) -> list[str]:
    """The workdirs, with the members' in place of an ensemble's; those that failed are named and left out.

    Raises:
        UserError: if a run is named twice, or an ensemble.json cannot be read.
    """
    runs = []
    for workdir in workdirs:
        of_it = [member_directory(workdir, seed) for seed in read_seeds(workdir)]
        failed = [run for run in of_it if os.path.exists(os.path.join(run, ENDED_JSON))]
        for run in failed:
            print(f'{run} could not be trained to its end and is left out', file=sys.stderr)
        runs += [run for run in of_it if run not in failed] or [workdir]
    places = [os.path.abspath(run) for run in runs]
    for run, place in zip(runs, places, strict=True):
        if places.count(place) > 1:
            raise UserError(f'{run} is named twice; its members would count twice')
    return runs


def usual_tta(sources: Sequence[str]) -> str:
    """The test-time augmentation that the packed models among them were scored with; `none` for runs alone.

    Raises:
        UserError: if they were scored with several.
    """
    found = {read_packed(path).tta: path for path in sources if is_packed(path)} or {'none': ''}
    if len(found) > 1:
        said = ', '.join(f'{path} with {tta}' for tta, path in found.items())
        raise UserError(f'{said}: they were scored with other test-time augmentations; name one, as by --tta=flip')
    return next(iter(found))


def choose_members(source: str, last: int = 0) -> list[Member]:
    """A run's last so many members, oldest first; with 0 its best one by validation. All members of a packed model.

    Args:
        source: workdir of a run, or a packed model (see `fer_jax.packed`).
        last: so many.

    Raises:
        UserError: if it has not so many, or is neither.
    """
    if is_packed(source):
        return _choose_packed(read_packed(source), last)
    run = run_json.read_run(source)
    if run.config.task != 'classify':
        raise UserError(f'{run.workdir} is a run of config.task={run.config.task}; the run of a classifier is wanted')
    if last > run.config.checkpoint.keep_last:
        raise UserError(
            f'{run.workdir} keeps its last {run.config.checkpoint.keep_last} members, {last} are asked for; '
            f'train with config.checkpoint.keep_last={last}'
        )
    checkpoints = Checkpoints(run.workdir)
    if not checkpoints.steps():
        raise UserError(f'{run.workdir} has no checkpoint yet; train it first')
    if not last:
        best = checkpoints.best()
        return [Member(run, checkpoints.steps()[-1] if best is None else best)]
    steps = checkpoints.members(last)
    if len(steps) < last:
        raise UserError(
            f'{run.workdir} has {len(steps)} of the {last} members asked for; take --last={len(steps)}, or train it on'
        )
    return [Member(run, step) for step in steps]


def find_member(place: str, step: int) -> Member:
    """The member that predictions name by the run it comes from and its step.

    Args:
        place: a workdir; of a packed model FILE:NAME.
        step: of a checkpoint, which is not looked for here.

    Raises:
        UserError: if the run or the packed model is not there.
    """
    path = place.rpartition(':')[0]
    if not is_packed(path):
        return Member(run_json.read_run(place), int(step))
    found = [member for member in choose_members(path) if (member.run.workdir, member.step) == (place, step)]
    if not found:
        raise UserError(f'{path} no longer holds {os.path.basename(place)}@{step}')
    return found[0]


def _choose_packed(packed: Packed, last: int) -> list[Member]:
    members = [Member(packed.runs[run], step, (packed.path, index)) for index, (run, step) in enumerate(packed.members)]
    if last not in (0, len(members)):
        raise UserError(f'{packed.path} is used as it was packed: all of its {len(members)}; leave --last out')
    return members


def group_members(
    members: Sequence[Member], same: Sequence[str], key: Callable[[run_json.RunDescription], Hashable]
) -> list[list[Member]]:
    """Members whose parameters stack: same network, same preprocessing, same `key` of their runs.

    Args:
        same: what all runs must agree in, attributes of RunDescription.

    Raises:
        UserError: if they do not.
    """
    first = members[0].run
    groups: dict[Hashable, list[Member]] = {}
    for member in members:
        run = member.run
        for what in same:
            if getattr(run, what) != getattr(first, what):
                raise UserError(
                    f'{run.workdir} and {first.workdir} differ in {what.replace("_", " ")}: '
                    f'{getattr(run, what)} and {getattr(first, what)}; only runs with the same can be averaged'
                )
        same_program = (repr(run.config.model.to_dict()), run.preprocessing, run.temperature, key(run))
        groups.setdefault(same_program, []).append(member)
    return list(groups.values())


def load_group(group: Sequence[Member], everywhere: jax.sharding.Sharding | None = None) -> tuple[nn.Module, Any]:
    """The network of members that stack, on a CPU in float32, and their variables with a leading axis M.

    Args:
        group: of one network and input.
        everywhere: where the variables lie; None: on the first local device.

    Raises:
        UserError: if a checkpoint is damaged.
    """
    run = group[0].run
    model = experiment.make_model(run.config, len(run.class_names))
    if jax.default_backend() == 'cpu':
        # The same numbers on every CPU, of which few have bfloat16; and an ONNX file of it could not be run.
        model = model.clone(dtype=jnp.float32)
    side, channels = run.preprocessing.input_side, run.preprocessing.channels
    shapes = variable_shapes(model, (side, side, channels))
    everywhere = everywhere or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=everywhere), shapes)
    return model, stack_members([_load(member, target) for member in group])


def _load(member: Member, target: Any) -> Any:
    if member.packed:
        return read_variables(*member.packed, target)
    return Checkpoints(member.run.workdir).restore_model(member.step, target)
