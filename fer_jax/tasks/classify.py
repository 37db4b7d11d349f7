"""`config.task='classify'`: a classifier, validated while it trains, evaluated and reported at its end."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from fer_jax import distributed, evaluate, experiment, pretrained
from fer_jax.data.dataset import SPLITS, Dataset, Split
from fer_jax.data.feed import Feed
from fer_jax.data.preprocess import VIEWS
from fer_jax.errors import UserError
from fer_jax.evaluation import inference
from fer_jax.evaluation.scores import confusion_matrix, negative_log_likelihood, per_class_scores, read_scores, softmax
from fer_jax.members import choose_members
from fer_jax.tasks.job import Job, Setting
from fer_jax.teachers import NOBODY, Teachers, load_teachers, refuse_other_teachers
from fer_jax.training import classify
from fer_jax.training.optimizer import OptimizerOptions, ScheduleOptions, make_optimizer, make_plateau


def check_config(config: ConfigDict) -> None:
    """Refuses what can be known to be wrong before any data is read."""
    if config.ensemble.members > 1:
        raise UserError(
            f'config.ensemble.members={config.ensemble.members} is for the train command, which makes a run of each; '
            'leave it at 1 here'
        )
    if config.pairs:
        raise UserError('config.pairs is for several pairs; set config.task=cyclegan, or leave it empty')
    for name in config.evaluation.splits:
        if name not in SPLITS[1:]:
            raise UserError(f'config.evaluation.splits names {name!r}; it can hold validation and test')
    if config.evaluation.tta not in VIEWS:
        raise UserError(f'config.evaluation.tta is {config.evaluation.tta!r}; it can be {", ".join(VIEWS)}')
    batch, groups = config.train.batch_size, config.model.norm_groups
    if batch % groups or batch == groups > 1:
        raise UserError(
            f'config.model.norm_groups={groups} does not cut config.train.batch_size={batch} into equal parts of two '
            'images or more'
        )
    if config.evaluation.last > config.checkpoint.keep_last:
        raise UserError(
            f'config.evaluation.last={config.evaluation.last} members are wanted, but '
            f'config.checkpoint.keep_last={config.checkpoint.keep_last} are kept; raise the latter'
        )


def narrow(config: ConfigDict, dataset: Dataset) -> Dataset:
    """The data set as it is.

    Raises:
        UserError: if the configuration reads a split which the data does not have.
    """
    there = ', '.join(dataset.splits)
    for name in config.evaluation.splits:
        if name not in dataset.splits:
            raise UserError(
                f'config.evaluation.splits names {name}, and {dataset.name} has {there}; set it to one of these or, '
                'to score nothing, to (), or make the split with config.data.folds'
            )
    if 'validation' in dataset.splits:
        return dataset
    for field, chosen in (
        ('train.early_stopping', config.train.early_stopping > 0),
        ('schedule.name=plateau', config.schedule.name == 'plateau'),
    ):
        if chosen:
            raise UserError(f'config.{field} goes by the validation loss, and {dataset.name} has no validation split')
    return dataset


def epoch_images(config: ConfigDict, dataset: Dataset) -> int:
    """All training images."""
    return len(dataset.splits['train'])


def make_feed(config: ConfigDict, dataset: Dataset, make: Callable[[Split, int], Feed]) -> Feed:
    """The feed of the training split."""
    return make(dataset.splits['train'], experiment.order_seed(config))


def make_job(setting: Setting) -> Job:
    """Network, first state, and what measures them on validation."""
    config, dataset = setting.config, setting.dataset
    preprocessing = experiment.make_preprocessing(config, dataset)
    teachers = load_teachers(config, dataset, preprocessing) if config.train.teachers else NOBODY
    if preprocessing.input_side < 8:
        raise UserError(f'the network would see {preprocessing.input_side} pixels a side; at least 8 are wanted')
    plateau = make_plateau(ScheduleOptions(**config.schedule)) if config.schedule.name == 'plateau' else None
    task = classify.Task(
        model=experiment.make_model(config, len(dataset.class_names)),
        optimizer=make_optimizer(OptimizerOptions(**config.optimizer), setting.schedule),
        preprocessing=preprocessing,
        plateau=plateau,
        augmentation=experiment.make_augmentation(config),
        class_weights=experiment.class_weights(config, dataset),
        teachers=teachers.networks,
        **{name: config.train[name] for name in ('label_smoothing', 'mixup', 'cutmix', 'ema', 'teacher_share')},
    )
    summary = experiment.summarize_model(task.model, preprocessing)
    return Job(
        start=functools.partial(_start, task, teachers),
        step=functools.partial(classify.train_step, task),
        evaluate=_make_evaluate(setting, task) if 'validation' in dataset.splits else None,
        after_evaluation=_make_after_evaluation(plateau),
        learning_rate=_make_learning_rate(task, setting.schedule),
        chosen_by='validation/accuracy',
        description={'preprocessing': dataclasses.asdict(preprocessing), 'model_summary': summary},
        headline=f'{config.model.name} ({summary["parameters"]:,} parameters)',
        finish=_evaluate_run,
    )


def _start(task: classify.Task, teachers: Teachers, setting: Setting) -> tuple[classify.State, dict[str, Any]]:
    """The first state, and what config.json says of `init_from` and of teachers.

    A run that goes on needs no source to begin from, but the teachers that it had.
    """
    config, goes_on = setting.config, setting.checkpoints.newest() is not None
    state = classify.init_state(task, jax.random.key(config.seed))
    told = {}
    if teachers.told:
        told['teachers'] = list(teachers.told)
        if goes_on:
            refuse_other_teachers(teachers, setting.workdir)
        # Each member's step takes the buffers of its own state.
        state = state.replace(teachers=jax.tree.map(jax.numpy.array, teachers.variables))
    if not config.init_from:
        return state, told
    if goes_on:
        return state, told | {'initialised_from': pretrained.recorded(setting.workdir)}
    names = setting.dataset.class_names
    variables, report = pretrained.load_pretrained(
        config.init_from, state.variables, model=config.model.name, class_names=names
    )
    if distributed.is_main() and not setting.member:
        print('\n'.join(report.lines()))
    average = None if state.average is None else jax.tree.map(jax.numpy.copy, variables)
    return state.replace(variables=variables, average=average), told | {'initialised_from': report.to_dict()}


def _make_evaluate(
    setting: Setting, task: classify.Task
) -> Callable[[Sequence[classify.State]], list[dict[str, float]]]:
    dataset, placement = setting.dataset, setting.placement
    split, batch_size = dataset.splits['validation'], setting.config.evaluation.batch_size
    predict = inference.make_predict(task.model, task.preprocessing, placement=placement)

    def scored(logits):
        probabilities = softmax(logits)
        confusion = confusion_matrix(split.labels, logits.argmax(-1), len(dataset.class_names))
        scores = per_class_scores(confusion, dataset.class_names)
        return {
            'validation/accuracy': float((logits.argmax(-1) == split.labels).mean()),
            'validation/loss': negative_log_likelihood(probabilities, split.labels),
            'validation/macro_f1': float(np.mean([of_class['f1'] for of_class in scores.values()])),
        }

    def evaluate_states(states):
        members = inference.stack_members([state.split()[0] for state in states])
        logits = inference.predict_split(predict, members, split.images, batch_size, placement=placement)
        return [scored(of_member) for of_member in logits]

    return evaluate_states


def _make_learning_rate(task: classify.Task, schedule: Callable) -> Callable[[classify.State, int], float]:
    if task.plateau is None:
        return lambda state, step: float(schedule(step))
    return lambda state, step: float(schedule(step) * state.plateau.scale)


def _make_after_evaluation(plateau: optax.GradientTransformationExtraArgs | None) -> Callable:
    if plateau is None:
        return lambda state, metrics: state

    def lower_rate(state, metrics):
        _, moved = plateau.update({}, state.plateau, value=metrics['validation/loss'])
        return state.replace(plateau=moved)

    return lower_rate


def _evaluate_run(setting: Setting) -> None:
    config, workdir = setting.config, setting.workdir
    if not config.evaluation.splits:
        if distributed.is_main():
            print(f'{workdir} is trained; config.evaluation.splits names nothing to be scored')
        return
    # A short run, or one stopped early, has fewer members than it may keep; of one without any the best step counts.
    last = len(setting.checkpoints.members(config.evaluation.last))
    steps = [member.step for member in choose_members(workdir, last)]
    if distributed.agree_max(is_scored(config, workdir, steps)):
        if distributed.is_main():
            print(f'{workdir} is trained and scored already; see {os.path.join(workdir, "report.md")}')
        return
    how = {'last': last, 'tta': config.evaluation.tta}
    evaluate.evaluate_runs([workdir], config.evaluation.splits, workdir, dataset=setting.dataset, **how)


def is_scored(config: ConfigDict, workdir: str, steps: Sequence[int]) -> bool:
    """Whether these members' steps are scored on all splits asked for: repeating the command reads test no more."""
    path = os.path.join(workdir, 'scores.json')
    scores = read_scores(path) if os.path.exists(path) else {}
    return all(
        [member['step'] for member in scores.get(split, {}).get('members', [])] == list(steps)
        and scores.get(split, {}).get('tta') == config.evaluation.tta
        for split in config.evaluation.splits
    )
