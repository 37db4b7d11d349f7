"""Trained pairs, found and loaded: from an image with one emotion to the same face with another.

    translators = load_translators(find_pairs(['checkpoints/pairs']))
    smiling = translators['neutral', 'happiness'](images)  # uint8 [N, H, W, C]

Shape letters: N images, H and W pixels, C channels.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from fer_jax import run_json
from fer_jax.errors import UserError
from fer_jax.evaluation.inference import map_batches
from fer_jax.models.cyclegan import Generator
from fer_jax.models.initial import variable_shapes
from fer_jax.training import cyclegan
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.mesh import make_placement

Run = str | os.PathLike[str]

BATCH = 64  # images of one compiled program, on each device


@dataclasses.dataclass(frozen=True)
class Translator:
    """One direction of a pair; called with images it gives their translations.

    Attributes:
        workdir: of the pair's run.
        step: of the checkpoint in use, the one that the pair was chosen by on validation, or the last one.
        source, target: emotions.
        size, channels: of the images it takes and gives, size x size pixels.
        run: from a batch on the devices to its translation there.
        batch_size: images of such a batch.
    """

    workdir: str
    step: int
    source: str
    target: str
    size: int
    channels: int
    run: Callable[[jax.Array], jax.Array] = dataclasses.field(repr=False)
    batch_size: int = BATCH

    def __call__(
        self, images_NHWC: UInt8[np.ndarray, 'N H W C'], progress: str | None = None
    ) -> UInt8[np.ndarray, 'N H W C']:
        """Translates images, on all local devices, in compiled batches of one size of which the last is padded.

        Args:
            images_NHWC: of the translator's size and channels: an array, or what reads when it is indexed.
            progress: words for a progress bar; None shows none.

        Raises:
            UserError: if the images have another size or other channels.
        """
        wanted = (self.size, self.size, self.channels)
        if images_NHWC.shape[1:] != wanted or images_NHWC.dtype != np.uint8:
            raise UserError(
                f'{self.workdir} translates uint8 images {list(wanted)}, not {images_NHWC.dtype} '
                f'{list(images_NHWC.shape[1:])}; fit them first, see fer_jax.data.stored.fit_images'
            )
        count = len(images_NHWC)
        if not count:
            return np.zeros((0, *wanted), np.uint8)
        if count < self.batch_size:  # the program is for whole batches alone
            images_NHWC = np.concatenate([images_NHWC[:], np.zeros((self.batch_size - count, *wanted), np.uint8)])
        placement = make_placement(devices=jax.local_devices())
        return map_batches(self.run, images_NHWC, self.batch_size, 0, progress, placement)[:count]


def find_pairs(paths: Sequence[Run]) -> list[str]:
    """The workdirs of pairs under the given names, each a pair's workdir or a directory of several.

    Raises:
        UserError: if there is none under one of them, or a pair is found twice.
    """
    found: list[str] = []
    for path in map(Path, paths):
        here = [path, *(sorted(path.iterdir()) if path.is_dir() else [])]
        pairs = [os.fspath(folder) for folder in here if _is_pair(folder)]
        if not pairs:
            raise UserError(
                f'{path} is no run of a pair and holds none; train one with a file of configs/cyclegan, '
                'and give its --workdir'
            )
        found += pairs
    for workdir in found:
        if found.count(workdir) > 1:
            raise UserError(f'{workdir} is named twice')
    return found


def load_translators(workdirs: Sequence[Run]) -> dict[tuple[str, str], Translator]:
    """Both directions of each pair, by source and target emotion, from its chosen checkpoint.

    Raises:
        UserError: if a workdir is no pair's, has no checkpoint yet or a damaged one, or two pairs serve one direction.
    """
    translators: dict[tuple[str, str], Translator] = {}
    for workdir in map(os.fspath, workdirs):
        for translator in _load(workdir):
            key = (translator.source, translator.target)
            if key in translators:
                other = translators[key].workdir
                raise UserError(f'{workdir} and {other} both translate {key[0]} to {key[1]}; give one of them')
            translators[key] = translator
    return translators


def chosen_step(workdir: Run) -> int:
    """The step of a pair's chosen checkpoint: the best by its score on validation; without a score, the last.

    Raises:
        UserError: if there is no checkpoint yet.
    """
    checkpoints = Checkpoints(os.fspath(workdir))
    if not checkpoints.steps():
        raise UserError(f'{os.fspath(workdir)} has no checkpoint yet; train it first')
    best = checkpoints.best()
    return checkpoints.steps()[-1] if best is None else best


def make_generator(config: ConfigDict, channels: int) -> Generator:
    """The network of either direction that `config.cyclegan` describes."""
    wanted = config.cyclegan
    sizes = {name: wanted[name] for name in ('blocks', 'width', 'skip')}
    return Generator(channels, dtype=jnp.dtype(config.model.dtype), **sizes)


def _is_pair(folder: Path) -> bool:
    return (folder / 'config.json').is_file() and run_json.read_run(os.fspath(folder)).config.task == 'cyclegan'


def _load(workdir: str) -> list[Translator]:
    run = run_json.read_run(workdir)
    if run.config.task != 'cyclegan':
        raise UserError(f'{workdir} is a classifier; the run of a pair is wanted (config.task=cyclegan)')
    size, channels = run.preprocessing.size, run.preprocessing.channels
    generator, step = make_generator(run.config, channels), chosen_step(workdir)
    placement = make_placement(devices=jax.local_devices())
    params = _restore(workdir, step, generator, (size, channels), placement.replicated)
    translate = jax.jit(
        lambda params, images: cyclegan.to_pixels(generator.apply({'params': params}, cyclegan.to_range(images))),
        out_shardings=placement.split(0),
    )
    batch_size = BATCH * placement.num_devices
    source, target = run.config.pair
    return [
        Translator(workdir, step, *names, size, channels, _with(translate, params[direction]), batch_size)
        for direction, names in (('a_to_b', (source, target)), ('b_to_a', (target, source)))
    ]


def _with(translate: Callable, params: Any) -> Callable[[jax.Array], jax.Array]:
    return lambda images: translate(params, images)


def _restore(
    workdir: str, step: int, generator: Generator, shape: tuple[int, int], everywhere: jax.sharding.Sharding
) -> dict[str, Any]:
    size, channels = shape
    params = variable_shapes(generator, (size, size, channels))['params']
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), params)
    return Checkpoints(workdir).restore_model(step, dict.fromkeys(('a_to_b', 'b_to_a'), target))
