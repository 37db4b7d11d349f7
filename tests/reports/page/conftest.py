"""Workdirs as training and evaluation leave them, made without either."""

import json

import numpy as np
import pytest

from fer_jax.evaluation import folds
from fer_jax.evaluation.mistakes import Mistakes, mistakes_path, save_mistakes
from fer_jax.evaluation.predictions import Predictions, save_predictions
from fer_jax.evaluation.scores import ensemble_probabilities, score_predictions, update_scores_file

NAMES = ('anger', 'fear', 'happiness')


def make_predictions(seed, members=2, examples=60, names=NAMES, split='validation', bonus=1.0):
    """Labels and ids are the same under every seed."""
    labels = (np.arange(examples) * 7 % len(names)).astype(np.int32)
    random = np.random.default_rng(seed)
    logits = random.normal(size=(members, examples, len(names))).astype(np.float32)
    logits[:, np.arange(examples), labels] += bonus
    order = random.permutation(examples)  # of the file, which need not be that of another
    return Predictions(
        ids=np.array([f'{split}_{index}' for index in range(examples)])[order],
        labels=labels[order],
        logits=logits[:, order],
        steps=1000 * np.arange(1, members + 1),
        class_names=np.array(names),
        twin_in_train=np.arange(examples) < 5,
        member_names=np.array([f'run@{1000 * member}' for member in range(1, members + 1)]),
        member_runs=np.array(['checkpoints/run'] * members),
    )


def write_mistakes(workdir, predictions, split, side=12):
    """Faces and maps of every wrong answer."""
    probabilities = ensemble_probabilities(predictions.logits)
    wrong = np.flatnonzero(probabilities.argmax(1) != predictions.labels)
    random = np.random.default_rng(0)
    maps = random.random((2, len(wrong), side - 2, side - 2)).astype(np.float32)
    members = [f'{run}@{step}' for run, step in zip(predictions.member_runs, predictions.steps, strict=True)]
    mistakes = Mistakes(
        ids=predictions.ids[wrong],
        members=np.array(members),
        predicted=probabilities.argmax(1)[wrong],
        confidence=probabilities.max(1)[wrong],
        images=random.integers(0, 256, (len(wrong), side, side, 1)).astype(np.uint8),
        saw_predicted=maps[0],
        saw_true=maps[1],
        shown_members=len(members),
    )
    save_mistakes(mistakes_path(workdir, split), mistakes)


@pytest.fixture
def make_workdir(tmp_path):
    def make(name='run', seed=1, splits=('validation',), names=NAMES, manifest='feedbeef', rate=0.1, faces=True, **how):
        workdir = tmp_path / name
        workdir.mkdir()
        description = {
            'config': {'task': 'classify', 'optimizer': {'learning_rate': rate}, 'model': {'name': 'shallow_cnn'}},
            'command': f'python -m fer_jax.train --config=configs/toy.py --config.seed={seed}',
            'seed': seed,
            'devices': {'count': 1, 'platform': 'cpu', 'kind': 'cpu'},
            'versions': {'jax': '0.10.2'},
            'manifest_hash': manifest,
            'git_revision': 'abc1234',
            'model_summary': {'parameters': 1234567, 'flops_per_image': 6.02e7},
        }
        (workdir / 'config.json').write_text(json.dumps(description))
        lines = [
            {
                'step': step,
                'epoch': step / 10,
                'train/loss': 2 - step / 50,
                'train/accuracy': step / 60,
                'seconds': step,
            }
            | ({'validation/accuracy': step / 80, 'validation/loss': 2.0} if step % 10 == 0 else {})
            for step in range(1, 51)
        ]
        (workdir / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, lines)))
        validation = make_predictions(seed, names=names, **how)
        for split in splits:
            predictions = make_predictions(seed, names=names, split=split, **how)
            save_predictions(workdir / 'predictions' / f'{split}.npz', predictions)
            entry = score_predictions(predictions, validation, dataset='toyfaces', manifest=manifest)
            update_scores_file(workdir / 'scores.json', split, entry)
            if faces:
                write_mistakes(workdir, predictions, split)
        return workdir

    return make


@pytest.fixture
def make_folds(tmp_path):
    """A cross-validation of two folds by subject, of which each subject has six images."""

    def make(name='folds', seed=1):
        workdir, ids = tmp_path / name, []
        for fold in (0, 1):
            place = workdir / f'fold{fold}'
            predictions = make_predictions(seed + fold, split=f'fold{fold}', examples=30)
            save_predictions(place / 'predictions' / 'test.npz', predictions)
            entry = score_predictions(predictions, None, dataset='toyfaces', manifest='feedbeef') | {'tta': 'none'}
            update_scores_file(place / 'scores.json', 'test', entry)
            data = {'fold': fold, 'folds': 2, 'fold_by': 'subject', 'fold_validation': False}
            (place / 'config.json').write_text(json.dumps({'config': {'data': data}, 'seed': 0}))
            (place / 'metrics.jsonl').write_text('{"step": 1, "seconds": 30.0}\n')
            ids += predictions.ids.tolist()
        units = [f'{identity[:5]} {int(identity[6:]) // 6}' for identity in ids]
        assignment = folds.Assignment(np.array(ids), np.array(units), np.repeat([0, 1], 30))
        folds.write_assignment(workdir / 'folds.csv', assignment)
        folds.write_folds_json(workdir)
        return workdir

    return make
