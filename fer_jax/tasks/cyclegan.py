"""`config.task='cyclegan'`: a pair of translators between two emotions, scored on validation while they train.

Shape letters: N images, H and W pixels, C channels.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview
from ml_collections import ConfigDict

from fer_jax import distributed, experiment, run_json
from fer_jax.config import default_config, flatten
from fer_jax.data.dataset import Dataset, Split
from fer_jax.data.feed import Feed
from fer_jax.data.pairs import PairFeed, select_pair
from fer_jax.data.preprocess import Preprocessing
from fer_jax.data.stored import fit_images
from fer_jax.data.synthetic import render, sample_parameters, with_emotion
from fer_jax.errors import UserError
from fer_jax.evaluation.inference import map_batches
from fer_jax.evaluation.translations import ImagesNHWC, Scorer
from fer_jax.judges import load_judge
from fer_jax.models.cyclegan import Discriminator, Generator
from fer_jax.models.operations import count_operations
from fer_jax.reports.figures import translation_sheet
from fer_jax.tasks.job import Job, Setting
from fer_jax.training import cyclegan
from fer_jax.training.optimizer import OptimizerOptions, make_optimizer
from fer_jax.translators import chosen_step, make_generator

CHOSEN_BY = 'validation/score'

Translate = Callable[[dict[str, Any], str, ImagesNHWC], ImagesNHWC]

# Fields that a pair has no use for: set to anything but their default, they would silently do nothing.
_OF_CLASSIFIERS = (
    'init_from data.soft_labels data.normalize data.crop model.dropout model.norm_groups augment.rotate augment.shift '
    'augment.shear augment.zoom augment.crop_scale augment.brightness augment.contrast augment.erase '
    'train.label_smoothing train.mixup train.cutmix train.class_weights train.teachers evaluation.tta evaluation.last '
    'evaluation.splits ensemble.members'
)


def check_config(config: ConfigDict) -> None:
    """Refuses what can be known to be wrong before any data is read."""
    given, defaults = flatten(config), flatten(default_config())
    for name in _OF_CLASSIFIERS.split():
        if given[name] != defaults[name]:
            raise UserError(f'config.{name} is for classifiers; a pair has no use for it, leave it at {defaults[name]}')
    if config.schedule.name == 'plateau':
        raise UserError('config.schedule.name=plateau goes by the validation loss, which a pair has not; take linear')
    if config.train.early_stopping and not config.cyclegan.judge:
        raise UserError('config.train.early_stopping goes by the score of config.cyclegan.judge, which is not set')


def narrow(config: ConfigDict, dataset: Dataset) -> Dataset:
    """The data set with the images of the two classes alone; what is not a pair of them is refused."""
    splits = {}
    for name, split in dataset.splits.items():
        if name == 'test':
            continue  # never read here
        select_pair(dataset, config.pair, name)
        labels = [dataset.class_names.index(emotion) for emotion in config.pair]
        splits[name] = split.select(np.isin(split.labels, labels))
    return dataclasses.replace(dataset, splits=splits)


def epoch_images(config: ConfigDict, dataset: Dataset) -> int:
    """The training images of the larger class, as in the authors' code."""
    return max(map(len, select_pair(dataset, config.pair)))


def make_feed(config: ConfigDict, dataset: Dataset, make: Callable[[Split, int], Feed]) -> Feed:
    """Batches of both classes, each in an order of its own."""
    return PairFeed(select_pair(dataset, config.pair), experiment.order_seed(config), make)


def make_job(setting: Setting) -> Job:
    """Networks, first state, and what shows and scores them on validation."""
    config, dataset = setting.config, setting.dataset
    _, height, width, channels = dataset.splits['train'].images.shape
    if height != width:
        raise UserError(f'{dataset.name} has images of {height}x{width} pixels; square ones are wanted')
    wanted = config.cyclegan
    widths = [wanted.discriminator_width * min(2**layer, 8) for layer in range(wanted.discriminator_layers)]
    options = OptimizerOptions(**config.optimizer)
    task = cyclegan.Task(
        generator=make_generator(config, channels),
        discriminator=Discriminator(tuple(widths), jnp.dtype(config.model.dtype)),
        optimizer=make_optimizer(options, setting.schedule),
        size=height,
        channels=channels,
        flip=config.augment.flip,
        ema=config.train.ema,
        **{name: wanted[name] for name in ('cycle', 'identity', 'pool')},
    )
    start = lambda setting: cyclegan.init_state(task, jax.random.key(setting.config.seed))
    translate = _make_translate(task.generator, setting)
    summary = dict(summarize(dataclasses.replace(task, optimizer=None), options, config.train.batch_size))
    preprocessing = Preprocessing(height, channels, mean=127.5, deviation=127.5)  # `cyclegan.to_range`
    return Job(
        start=lambda setting: (start(setting), {}),
        step=functools.partial(cyclegan.train_step, task),
        evaluate=_make_evaluate(setting, translate) if 'validation' in dataset.splits else None,
        pictures=_make_pictures(setting, translate),
        pictures_every=wanted.samples_every,
        after_evaluation=lambda state, metrics: state,
        learning_rate=lambda state, step: float(setting.schedule(step)),
        chosen_by=CHOSEN_BY,
        description={'preprocessing': dataclasses.asdict(preprocessing), 'model_summary': summary},
        headline=f'{" and ".join(config.pair)} (generators of {summary["parameters"]:,} parameters)',
        finish=_finish,
    )


@functools.cache  # once for several pairs
def summarize(task: cyclegan.Task, options: OptimizerOptions, batch_size: int) -> dict[str, float | int]:
    """Parameters, and floating-point operations as XLA counts them in the program it is given.

    Args:
        task: without its optimiser, which `options` describe.

    Returns:
        `parameters` and `discriminator_parameters` of one network each, `flops_per_image` of a translation, and
        `train_flops_per_image`, of a training step for each of its pairs of images.
    """
    task = dataclasses.replace(task, optimizer=make_optimizer(options, lambda _: options.learning_rate))
    state = jax.eval_shape(functools.partial(cyclegan.init_state, task), jax.random.key(0))
    shape = (batch_size, task.size, task.size, task.channels)
    batch = {f'images_{domain}': jax.ShapeDtypeStruct(shape, jnp.uint8) for domain in 'ab'}
    forward = functools.partial(cyclegan.translate, task.generator)
    step = functools.partial(cyclegan.train_step, task)
    key = jax.eval_shape(lambda: jax.random.key(0))
    flops = lambda *work: count_operations(*work) / batch_size
    return {
        'parameters': _count(state.generators['a_to_b']),
        'discriminator_parameters': _count(state.discriminators['a']),
        'flops_per_image': flops(forward, state.generators, batch['images_a']),
        'train_flops_per_image': flops(step, state, batch, key),
    }


def _count(params: Any) -> int:
    return int(parameter_overview.count_parameters(params))


def _make_translate(generator: Generator, setting: Setting) -> Translate:
    """A function of parameters, direction and images that translates them on all devices of the run."""
    placement, batch_size = setting.placement, setting.config.evaluation.batch_size
    program = jax.jit(
        lambda params, images: cyclegan.to_pixels(generator.apply({'params': params}, cyclegan.to_range(images))),
        out_shardings=placement.replicated,
    )

    def translate(generators: dict[str, Any], direction: str, images_NHWC: ImagesNHWC) -> ImagesNHWC:
        run = functools.partial(program, generators[direction])
        return map_batches(run, images_NHWC, batch_size, placement=placement)

    return translate


def _make_evaluate(
    setting: Setting, translate: Translate
) -> Callable[[Sequence[cyclegan.State]], list[dict[str, float]]]:
    config, dataset = setting.config, setting.dataset
    splits = [_first(split, config.cyclegan.score_images) for split in select_pair(dataset, config.pair, 'validation')]
    images = {domain: np.asarray(split.images[:]) for domain, split in zip('ab', splits, strict=True)}
    judge = None
    if config.cyclegan.judge:
        if min(map(len, splits)) < 2:
            raise UserError(
                f'{dataset.name} has one validation image of {config.pair[len(splits[0]) > 1]}; the score of '
                'config.cyclegan.judge wants two or more'
            )
        judge = load_judge(config.cyclegan.judge, config.pair, config.evaluation.batch_size, setting.placement)
    truth = {}
    if dataset.manifest['dataset'] == 'synthetic':
        targets = zip(('a_to_b', 'b_to_a'), splits, reversed(config.pair), strict=True)
        truth = {direction: _paired_truth(dataset, split, target) for direction, split, target in targets}
    scorer = Scorer(images, judge, truth)

    def evaluate(states: Sequence[cyclegan.State]) -> list[dict[str, float]]:
        return [scorer.score(functools.partial(translate, state.split()[0])) for state in states]

    return evaluate


def _first(split: Split, count: int) -> Split:
    """At most so many examples, in the order of a hash of their ids: a sample that other images do not move."""
    order = sorted(range(len(split)), key=lambda row: hashlib.sha256(str(split.ids[row]).encode()).digest())
    return split.select(np.sort(order[:count]))


def _paired_truth(dataset: Dataset, split: Split, emotion: str) -> ImagesNHWC:
    """Synthetic faces, drawn again under another emotion at the size and channels in use."""
    arguments = dataset.manifest['arguments']
    indices = [int(identity.removeprefix('synthetic_')) for identity in split.ids]
    sampling = {name: arguments[name] for name in ('min_intensity', 'max_intensity', 'blend_rate')}
    drawn = sample_parameters(arguments['seed'], indices, classes=arguments['classes'], **sampling)
    images = render(with_emotion(*drawn, emotion)[0], arguments['size'], arguments['channels'])
    return fit_images(images, split.images.shape[1], split.images.shape[-1])


def _make_pictures(setting: Setting, translate: Translate) -> Callable[[cyclegan.State, int], dict[str, Path]]:
    config, dataset = setting.config, setting.dataset
    name = 'validation' if 'validation' in dataset.splits else 'train'
    splits = [_first(split, config.cyclegan.samples) for split in select_pair(dataset, config.pair, name)]
    shown = {domain: np.asarray(split.images[:]) for domain, split in zip('ab', splits, strict=True)}

    def draw(state: cyclegan.State, step: int) -> dict[str, Path]:
        generators, blocks = state.split()[0], {}
        for direction, back, emotions in (
            ('a_to_b', 'b_to_a', config.pair),
            ('b_to_a', 'a_to_b', tuple(reversed(config.pair))),
        ):
            originals = shown[direction[0]]
            made = translate(generators, direction, originals)
            blocks[emotions] = (originals, made, translate(generators, back, made))
        path = Path(setting.workdir) / 'figures' / f'samples_{step:07d}.png'
        if distributed.is_main():
            title = f'{config.pair[0]} and {config.pair[1]}, translated after {step:,} steps'
            subtitle = f'{dataset.name}, {name} images drawn by a hash of their ids, not by how they look'
            translation_sheet(blocks, path, title=title, subtitle=subtitle)
        return {'samples': path}

    return draw


def _finish(setting: Setting) -> None:
    """Writes pair.json: which checkpoint is the one to translate with, by which rule, and what it scored."""
    if not distributed.is_main():
        return
    step = chosen_step(setting.workdir)
    metrics = setting.checkpoints.position(step)['metrics']
    rule = CHOSEN_BY if CHOSEN_BY in metrics else 'the last one, as no judge scores them'
    found = {'pair': list(setting.config.pair), 'step': step, 'chosen_by': rule, 'metrics': metrics}
    run_json.write_json(os.path.join(setting.workdir, 'pair.json'), found)
    print(f'{setting.workdir} is trained; step {step} is the one to translate with ({rule})')
    for domain, (source, target) in zip(
        ('a_to_b', 'b_to_a'), (setting.config.pair, setting.config.pair[::-1]), strict=True
    ):
        if f'validation/read_{domain}' in metrics:
            read, before = (metrics[f'validation/{name}_{domain}'] for name in ('read', 'untranslated_read'))
            distance, apart = (metrics[f'validation/{name}_{domain}'] for name in ('kid', 'untranslated_kid'))
            print(
                f'  {source} to {target}: read as {target} {read:.1%} (untranslated {before:.1%}), '
                f'KID {distance:.4f} (untranslated {apart:.4f})'
            )
