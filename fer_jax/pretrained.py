"""`config.init_from`: first parameters out of a run of fer_jax, or out of a state dict with torchvision's names.

What such weights expect of the input differs from what they get. torchvision's saw RGB images of 224 pixels,
in 0 to 1, less (.485, .456, .406) and divided by (.229, .224, .225). Here all channels are
normalised alike, by the training pixels' mean and deviation or each image's own, so that a channel may be shifted
by a few tenths of a deviation; and images of 48 pixels, without the strided stem and pool, keep a face's parts at about
the size that layers after the stem knew. BatchNorm adapts to both within the first steps.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from fer_jax import experiment, run_json
from fer_jax.errors import UserError
from fer_jax.models.initial import variable_shapes
from fer_jax.models.state_dicts import read_state_dict
from fer_jax.models.torchvision import COUNTERPARTS, to_our_layout, torchvision_names
from fer_jax.training.checkpoints import Checkpoints

_FIRST = 'params/Conv_0/kernel'  # the first convolution of every network
_HEAD = ('params/head/kernel', 'params/head/bias')


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of the arrays; names are ours (`params/Conv_0/kernel`) but in `unused`.

    Attributes:
        source: as given, with the step of a run.
        used: set from the source.
        changed: those of `used` that were not simply taken as they are, and what was done.
        left: as initialised, and why.
        unused: of the source, and why.
    """

    source: str
    used: tuple[str, ...]
    changed: Mapping[str, str]
    left: Mapping[str, str]
    unused: Mapping[str, str]

    def lines(self) -> list[str]:
        """For people: counts, and names by reason."""
        total = len(self.used) + len(self.left)
        lines = [f'init_from {self.source}: {len(self.used)} of {total} arrays set']
        for what, reasons in (('set', self.changed), ('left as initialised', self.left), ('unused', self.unused)):
            lines += [f'  {what}: {_some(reasons, reason)} ({reason})' for reason in dict.fromkeys(reasons.values())]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """For config.json."""
        return dataclasses.asdict(self)


def load_pretrained(
    source: str, variables: Any, *, model: str, class_names: Sequence[str]
) -> tuple[dict[str, Any], Report]:
    """Variables with the source's values where they fit.

    The head is taken where it has as many outputs (from a run: the same classes), the first convolution where only its
    input channels differ: from 3 to 1 its kernels are summed, from 1 to 3 they are repeated at a third, either
    of which gives what grey images in three channels gave. torchvision's 7x7 stem and its BatchNorm, and the
    dense layers of its VGG, have no counterpart here and are not used.

    Args:
        source: directory of a run of the same network (its best checkpoint), or a file.
        variables: freshly initialised `params` and `batch_stats`.
        model: name of the network.
        class_names: K names in the order of the head's outputs.

    Returns:
        Variables of the same shapes, and what was done.

    Raises:
        UserError: if the source cannot be read or is of another network.
    """
    ours = flax.traverse_util.flatten_dict(jax.device_get(variables), sep='/')
    if os.path.isdir(source):
        found, report = _from_run(source, ours, model, class_names)
    else:
        found, report = _from_torchvision(source, ours, model, class_names)
    for name, array in found.items():
        if not np.isfinite(array).all():
            raise UserError(f'{source}: {name} holds values that are not finite')
    arrays = {name: jnp.array(array) for name, array in {**ours, **found}.items()}
    return flax.traverse_util.unflatten_dict(arrays, sep='/'), report


def recorded(workdir: str) -> dict[str, Any]:
    """The report that an earlier start of this run left in its config.json; {} if there is none."""
    try:
        with open(os.path.join(workdir, 'config.json')) as file:
            return json.load(file).get('initialised_from', {})
    except (OSError, ValueError, AttributeError):
        return {}


def _from_run(source: str, ours: dict[str, np.ndarray], model: str, class_names: Sequence[str]):
    run = run_json.read_run(source)
    if run.config.task != 'classify':
        raise UserError(f'{source} is a run of config.task={run.config.task}; the run of a classifier is wanted')
    if run.config.model.name != model:
        raise UserError(f'{source} trained {run.config.model.name}; config.model.name is {model}')
    checkpoints = Checkpoints(source)
    if not checkpoints.steps():
        raise UserError(f'{source} has no checkpoint yet; train it first')
    best = checkpoints.best()
    step = checkpoints.steps()[-1] if best is None else best
    side, channels = run.preprocessing.input_side, run.preprocessing.channels
    network = experiment.make_model(run.config, len(run.class_names))
    shapes = variable_shapes(network, (side, side, channels))
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=here), shapes)
    restored = jax.device_get(checkpoints.restore_model(step, target))
    theirs = flax.traverse_util.flatten_dict(restored, sep='/')
    skipped = {}
    if tuple(run.class_names) != tuple(class_names):
        skipped = dict.fromkeys(_HEAD, f'the classes there are {", ".join(run.class_names)}')
    hint = f'; that run saw {side} pixels a side (config.data.size, config.data.crop)'
    found, changed, left = _fit(theirs, ours, skipped, source, hint)
    unused = {name: reason for name, reason in left.items() if name in theirs}
    return found, Report(f'{source} step {step}', tuple(found), changed, left, unused)


def _from_torchvision(source: str, ours: dict[str, np.ndarray], model: str, class_names: Sequence[str]):
    if model not in COUNTERPARTS:
        raise UserError(
            f'{source}: torchvision has no {model}; state dicts fit {", ".join(COUNTERPARTS)}, '
            'other networks start from a run of fer_jax'
        )
    tensors = read_state_dict(source)
    if all(name.startswith('module.') for name in tensors):  # torch.nn.DataParallel's prefix
        tensors = {name.removeprefix('module.'): tensor for name, tensor in tensors.items()}
    names = torchvision_names(model)
    unused = {name: 'a counter of PyTorch' for name in tensors if name.endswith('.num_batches_tracked')}
    if model == 'vgg19':
        dense = 'one linear layer here'
        unused |= {name: dense for name in tensors if name.startswith('classifier.')}
    _refuse_other_names(source, model, tensors, names, unused)
    theirs = {mine: to_our_layout(tensors[name]) for mine, name in names.items()}
    skipped = dict.fromkeys(_HEAD, 'dense layers of other sizes there') if model == 'vgg19' else {}
    stem = theirs[_FIRST].shape
    if len(stem) == 4 and stem[:2] != (3, 3):
        of_stem = [name for name in names if name.split('/')[1] in ('Conv_0', 'BatchNorm_0')]
        skipped |= dict.fromkeys(of_stem, f'the stem there is {stem[0]}x{stem[1]}, here 3x3')
    found, changed, left = _fit(theirs, ours, skipped, source, f'; is it a state dict of {COUNTERPARTS[model][1]}?')
    unused |= {names[mine]: reason for mine, reason in left.items() if mine in names}
    if _HEAD[0] in found:
        changed |= dict.fromkeys(_HEAD, f'its outputs are read as {", ".join(class_names)}, in this order')
    return found, Report(source, tuple(found), changed, left, unused)


def _refuse_other_names(
    source: str, model: str, tensors: Mapping[str, Any], names: Mapping[str, str], unused: Mapping[str, str]
) -> None:
    """Refuses a file that lacks a name or has one too many, with the nearest."""
    lacking = [name for name in names.values() if name not in tensors]
    further = [name for name in tensors if name not in unused and name not in set(names.values())]
    if not lacking and not further:
        return
    start = f'{source} is no state dict of {COUNTERPARTS[model][1]}: '
    fitting = [other for other in COUNTERPARTS if set(torchvision_names(other).values()) <= tensors.keys()]
    if fitting and fitting[-1] != model:  # the larger network's names hold the smaller one's
        raise UserError(f'{start}its names are those of {COUNTERPARTS[fitting[-1]][1]}')
    wrong, among = (lacking[0], further or tensors) if lacking else (further[0], names.values())
    close = difflib.get_close_matches(wrong, list(among), 1)
    nearest = f'; the nearest {"there" if lacking else "wanted"} is {close[0]}' if close else ''
    raise UserError(f'{start}it {"lacks" if lacking else "also has"} {wrong}{nearest}')


def _fit(
    theirs: Mapping[str, np.ndarray],
    ours: Mapping[str, np.ndarray],
    skipped: Mapping[str, str],
    source: str,
    hint: str,
) -> tuple[dict[str, np.ndarray], dict[str, str], dict[str, str]]:
    """Theirs in our shapes: (found, what was changed, what is left and why)."""
    found, changed, left = {}, {}, dict(skipped)
    for name in _HEAD:
        if name not in skipped and theirs[name].shape != ours[name].shape:
            shapes = f'{theirs[_HEAD[0]].shape} there, {ours[_HEAD[0]].shape} here'
            left |= dict.fromkeys(_HEAD, f'the head is {shapes}')
    for name, array in ours.items():
        if name in left:
            continue
        value = theirs[name]
        if name == _FIRST and _differ_in(value, array) == [2]:
            before, after = value.shape[2], array.shape[2]
            if (before, after) not in ((3, 1), (1, 3)):
                raise UserError(f'{source}: its first convolution has {before} input channels; 1 or 3 are wanted')
            value = value.sum(2, keepdims=True) if after == 1 else np.repeat(value / 3, 3, 2)
            changed[name] = 'summed over 3 input channels' if after == 1 else 'repeated over 3 input channels'
        if value.shape != array.shape:
            raise UserError(f'{source}: {name} has the shape {value.shape} there and {array.shape} here{hint}')
        found[name] = value.astype(array.dtype)
    return found, changed, left


def _differ_in(one: np.ndarray, other: np.ndarray) -> list[int]:
    if one.ndim != other.ndim:
        return []
    return [axis for axis, sizes in enumerate(zip(one.shape, other.shape, strict=True)) if len(set(sizes)) > 1]


def _some(reasons: Mapping[str, str], reason: str) -> str:
    names = [name for name, of in reasons.items() if of == reason]
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')
