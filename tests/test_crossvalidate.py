"""Folds as runs: every image tested once, nothing trained twice, and a report when all are there."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from fer_jax import crossvalidate, evaluate, experiment, run_json, train
from fer_jax.errors import UserError
from fer_jax.evaluation.folds import read_assignment
from fer_jax.evaluation.predictions import Predictions, load_predictions, save_predictions
from fer_jax.evaluation.scores import score_predictions, update_scores_file
from fer_jax.reports.folds import folds_table
from fer_jax.training.stopping import Stopped

CHANGES = {'data__folds': 3, 'train__steps': 4, 'evaluation__every_steps': 2, 'evaluation__last': 2}
CONFIG = """
from fer_jax.config import default_config

def get_config():
    config = default_config()
    config.data.name = 'rows'
    config.data.folds = 3
    config.train.steps = 4
    config.train.batch_size = 16
    config.evaluation.every_steps = 2
    config.evaluation.last = 2
    return config
"""


def with_subjects(data, shift=0):
    """Every eight images in a row are of one subject."""
    splits, start = {}, shift
    for name, split in data.splits.items():
        subjects = np.array([f's{index // 8:02d}' for index in range(start, start + len(split))])
        splits[name], start = dataclasses.replace(split, extra={'subject': subjects}), start + len(split)
    return dataclasses.replace(data, splits=splits)


@pytest.fixture
def load(monkeypatch, make_dataset):
    """Makes `load_data` give noise of 24, 15 and 9 images, and runs be on one device and without pictures."""
    data = with_subjects(make_dataset((24, 15, 9)))
    monkeypatch.setattr(jax, 'devices', lambda *_: jax.local_devices()[:1])
    monkeypatch.setattr('fer_jax.evaluate.write_report', lambda *_, **__: None)
    monkeypatch.setattr(experiment, 'load_prepared', lambda *_, **__: data)
    return lambda other: monkeypatch.setattr(experiment, 'load_prepared', lambda *_, **__: other)


@pytest.mark.usefixtures('load')
def test_all_folds_make_one_report(make_config, make_dataset, tmp_path, capsys):
    crossvalidate.crossvalidate(make_config(**CHANGES), str(tmp_path), [0, 1, 2])
    data = make_dataset((24, 15, 9))
    assignment = read_assignment(tmp_path / 'folds.csv')
    tested, right = [], []
    for fold in range(3):
        run = json.loads((tmp_path / f'fold{fold}' / 'config.json').read_text())
        assert (run['config']['data']['fold'], run['config']['evaluation']['splits']) == (fold, ['validation', 'test'])
        assert [sum(counts.values()) for counts in run['manifest']['counts'].values()] == [16, 16, 16]
        found = load_predictions(tmp_path / f'fold{fold}' / 'predictions' / 'test.npz')
        tested += found.ids.tolist()
        assert sorted(found.ids) == sorted(assignment.ids[assignment.folds == fold])
        right += (np.asarray(jax.nn.softmax(found.logits)).mean(0).argmax(-1) == found.labels).tolist()
    assert sorted(tested) == sorted(np.concatenate([split.ids for split in data.splits.values()]))
    folds = json.loads((tmp_path / 'folds.json').read_text())
    assert (folds['num_examples'], folds['num_units'], folds['by']) == (48, 6, 'subject')
    assert folds['ensemble']['pooled']['accuracy'] == pytest.approx(np.mean(right))
    printed = capsys.readouterr()
    assert folds_table(folds) in printed.out
    assert 'fold 1 of 3: ' in printed.err and 'fold 3 of 3, about ' in printed.err
    report = (tmp_path / 'report.md').read_text()
    assert 'Nobody is in training and in test. There are 6 subjects.' in report
    for line in report.splitlines():
        if line.startswith('!['):
            assert (tmp_path / line.split('(')[1].rstrip(')')).stat().st_size > 1000
    assert {path.name for path in (tmp_path / 'figures').iterdir()} >= {'confusion_counts.png', 'accuracies.png'}
    with pytest.raises(UserError, match='fold1 and .*fold0 hold out other images for validation'):
        evaluate.evaluate_runs([f'{tmp_path}/fold0', f'{tmp_path}/fold1'], ['test'], str(tmp_path / 'both'))
    assert not (tmp_path / 'both').exists()


@pytest.fixture
def command(tmp_path):
    (tmp_path / 'config.py').write_text(CONFIG)
    return [f'--config={tmp_path}/config.py', f'--workdir={tmp_path}/cv']


def leave_results(config, workdir):
    """What a run leaves, without training one: a network that answers `anger` to everything."""
    data = experiment.load_data(config)
    predictions = {}
    for name in ('validation', 'test'):
        split = data.splits[name]
        logits = np.tile(np.float32([1, 0, 0]), (1, len(split), 1))
        twins, steps, member = np.zeros(len(split), bool), np.array([4]), np.array([workdir])
        names = np.array(data.class_names)
        predictions[name] = Predictions(split.ids, split.labels, logits, steps, names, twins, member, member)
        save_predictions(f'{workdir}/predictions/{name}.npz', predictions[name])
        scores = score_predictions(
            predictions[name], predictions['validation'], dataset=data.name, manifest=data.manifest_hash
        )
        update_scores_file(f'{workdir}/scores.json', name, scores | {'tta': config.evaluation.tta})
    run_json.write_json(f'{workdir}/config.json', run_json.describe(config, data))


@pytest.mark.usefixtures('load')
def test_folds_are_trained_once_wherever_the_command_stopped(tmp_path, command, monkeypatch, capsys):
    trained = []

    def stopped_in_fold_one(config, workdir):
        if config.data.fold == 1 and trained == [2, 0]:
            trained.append('stop')
            raise Stopped(15, 3)
        trained.append(config.data.fold)
        leave_results(config, workdir)

    monkeypatch.setattr(train, 'train', stopped_in_fold_one)
    assert crossvalidate.main([*command, '--folds=2']) == 0
    assert 'folds 0, 1 of' in capsys.readouterr().out and not (tmp_path / 'cv' / 'folds.json').exists()
    assert crossvalidate.main(command) == 143
    assert 'stopped at step 3' in capsys.readouterr().err
    assert crossvalidate.main(command) == 0
    assert trained == [2, 0, 'stop', 1]
    folds = json.loads((tmp_path / 'cv' / 'folds.json').read_text())
    assert folds['single']['pooled']['confusion'] == [[16, 0, 0]] * 3  # 48 images of three classes, all read as anger
    assert crossvalidate.main(command) == 0
    assert trained == [2, 0, 'stop', 1]  # all there: nothing is trained anew
    assert {fold['readings'] for fold in read_all(tmp_path / 'cv')} == {1}
    with pytest.raises(UserError, match=r'fold0 was trained with config.seed=0; this configuration now has 5'):
        crossvalidate.main([*command, '--config.seed=5'])


def read_all(workdir):
    return [json.loads((workdir / f'fold{fold}' / 'scores.json').read_text())['test'] for fold in range(3)]


@pytest.mark.usefixtures('load')
def test_without_validation_nothing_is_chosen(make_config, tmp_path):
    config = make_config(**CHANGES, data__fold_validation=False)
    crossvalidate.crossvalidate(config, str(tmp_path), [1])
    scores = json.loads((tmp_path / 'fold1' / 'scores.json').read_text())
    assert list(scores) == ['test']
    assert [member['step'] for member in scores['test']['members']] == [2, 4]
    assert (scores['test']['single']['step'], scores['test']['single']['validation_accuracy']) == (4, None)
    run = json.loads((tmp_path / 'fold1' / 'config.json').read_text())
    counts = {name: sum(counts.values()) for name, counts in run['manifest']['counts'].items()}
    assert counts == {'train': 32, 'test': 16}


def test_folds_never_change_under_a_run(make_config, make_dataset, tmp_path, load, monkeypatch):
    monkeypatch.setattr(train, 'train', lambda *_: None)
    config = make_config(**CHANGES)
    crossvalidate.crossvalidate(config, str(tmp_path), [0])
    load(with_subjects(make_dataset((24, 15, 9)), shift=4))
    with pytest.raises(UserError, match='folds.csv assigns the images to other folds'):
        crossvalidate.crossvalidate(config, str(tmp_path), [0])


@pytest.mark.usefixtures('load')
@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--folds=3'], 'of 3 folds there are 0 to 2'),
        (['--folds=a'], 'whole numbers'),
        (['--config.data.fold=1'], '--folds=1 trains only that one'),
        (['--config.data.folds=0'], 'config.data.folds is 0; give'),
        (['--config.data.folds=2'], 'at least 3 are wanted'),
        (['--config.data.fold_by=person'], 'image, sequence, subject'),
        (['--config.data.fold_by=sequence'], 'name no sequence'),
        (['--confg=x'], 'did you mean --config'),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(tmp_path, command, flags, message):
    with pytest.raises(UserError, match=message) as caught:
        crossvalidate.main([*command, *flags])
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'cv').exists()
