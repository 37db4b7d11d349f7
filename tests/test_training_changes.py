"""Runs on a changed training split: what is refused, what still compares, and folds of training alone."""

import json

import jax
import numpy as np
import pytest

from fer_jax import crossvalidate, evaluate, experiment, run_json
from fer_jax.errors import UserError
from fer_jax.evaluation.predictions import load_predictions
from fer_jax.runs import finished


@pytest.fixture
def audit(tmp_path):
    path = tmp_path / 'audit.csv'
    path.write_text('id,flag\ntrain_1,1\ntrain_2,1\ntest_1,1\n')
    return path


def described(workdir):
    with open(f'{workdir}/config.json') as file:
        return json.load(file)


def test_a_run_goes_on_only_with_the_same_files(make_run, make_config, audit, tmp_path, capsys):
    workdir = make_run(data__exclude=(str(audit),))
    assert '2 left out: 40 - 2 = 38; 1 rows would change evaluation images' in capsys.readouterr().out
    there = described(workdir)['manifest']
    assert sum(there['counts']['train'].values()) == 38
    assert there['changes']['exclude']['files'][0]['file'] == str(audit)
    make_run(data__exclude=(str(audit),))
    config = make_config(data__exclude=(str(audit),))
    assert finished(tmp_path / 'run', config, 'row')
    audit.write_text('id,flag\ntrain_1,1\ntrain_3,1\ntest_1,1\n')
    with pytest.raises(UserError, match=r'other training images: .*audit.csv \(SHA-256 .* has changed since'):
        make_run(data__exclude=(str(audit),))
    with pytest.raises(UserError, match='with another .*audit.csv, which has changed since; move it away'):
        finished(tmp_path / 'run', config, 'row')


def test_runs_on_other_training_images_are_read_together(make_run, audit, tmp_path, dataset):
    runs = [make_run('all'), make_run('less', data__exclude=(str(audit),)), make_run('noisy', data__noise__rate=0.3)]
    evaluate.evaluate_runs(runs, ['test'], str(tmp_path / 'together'))
    found = load_predictions(tmp_path / 'together' / 'predictions' / 'test.npz')
    assert found.num_members == 3
    assert found.ids.tolist() == dataset.splits['test'].ids.tolist()
    np.testing.assert_array_equal(found.labels, dataset.splits['test'].labels)
    assert described(runs[2])['manifest']['changes']['noise']['wrong'] == 12


def test_the_order_is_noise_then_audits_then_limits(make_config, make_dataset, monkeypatch, tmp_path):
    data = make_dataset()
    monkeypatch.setattr(experiment, 'load_prepared', lambda _: data)
    noise = {'data__noise__rate': 0.4, 'data__noise__seed': 2}
    noisy = experiment.load_data(make_config(**noise)).splits['train']
    wrong = noisy.labels != noisy.extra['true_label']
    rows = [f'{i},{data.class_names[k]},1' for i, k in zip(noisy.ids[wrong], noisy.labels[wrong], strict=True)]
    path = tmp_path / 'found.csv'
    path.write_text('\n'.join(['id,label,flag', *rows]))
    cleaned = experiment.load_data(make_config(**noise, data__exclude=(str(path),), data__limit=('happiness=3',)))
    train = cleaned.splits['train']
    np.testing.assert_array_equal(train.labels, train.extra['true_label'])
    assert not set(train.ids) & set(noisy.ids[wrong])
    assert (train.labels == 2).sum() == 3


def test_folds_of_training_leave_the_evaluation_images_out(make_config, make_dataset, monkeypatch, tmp_path):
    data = make_dataset((24, 15, 9))
    monkeypatch.setattr(experiment, 'load_prepared', lambda _: data)
    monkeypatch.setattr(jax, 'devices', lambda *_: jax.local_devices()[:1])
    monkeypatch.setattr('fer_jax.evaluate.write_report', lambda *_, **__: None)
    monkeypatch.setattr(crossvalidate, 'write_folds_report', lambda *_: 'report.md')
    config = make_config(
        data__folds=2, data__fold_of='train', data__fold_by='image', data__fold_validation=False,
        data__noise__rate=0.25, train__steps=2, evaluation__every_steps=2,
    )  # fmt: skip
    crossvalidate.crossvalidate(config, str(tmp_path), [0, 1])
    found = [load_predictions(tmp_path / f'fold{fold}' / 'predictions' / 'test.npz') for fold in (0, 1)]
    ids = np.concatenate([predictions.ids for predictions in found])
    assert sorted(ids) == sorted(data.splits['train'].ids)
    noisy = experiment.load_data(make_config(data__noise__rate=0.25)).splits['train']
    given = dict(zip(noisy.ids.tolist(), noisy.labels.tolist(), strict=True))
    told = np.concatenate([predictions.labels for predictions in found])
    assert [given[identity] for identity in ids] == told.tolist()


def test_a_cross_validation_of_everything_keeps_its_tested_labels(make_config, make_dataset, monkeypatch, audit):
    data = make_dataset((24, 15, 9))
    monkeypatch.setattr(experiment, 'load_prepared', lambda _: data)
    changes = {'data__folds': 3, 'data__fold_by': 'image'}
    clean = experiment.load_data(make_config(**changes))
    changed = experiment.load_data(make_config(**changes, data__noise__rate=0.5, data__exclude=(str(audit),)))
    for name in ('validation', 'test'):
        assert changed.splits[name].ids.tolist() == clean.splits[name].ids.tolist()
        assert changed.splits[name].labels.tolist() == clean.splits[name].labels.tolist()
    assert (changed.splits['train'].labels != changed.splits['train'].extra['true_label']).any()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'data__fold_of': 'training'}, "fold_of is 'training'; it can be all or train"),
        ({'data__noise__rate': 2.0}, 'noise.rate is 2.0'),
        ({'data__exclude': ('nowhere.csv',)}, 'config.data.exclude names nowhere.csv'),
        ({'data__extra': ('nowhere.csv',)}, 'config.data.extra names nowhere.csv'),
        ({'data__noise__rate': 0.5, 'data__soft_labels': True}, 'votes, which changed labels do not reach'),
    ],
)
def test_what_cannot_be_is_one_line(make_config, dataset, monkeypatch, changes, message):
    monkeypatch.setattr(experiment, 'load_prepared', lambda _: dataset)
    with pytest.raises(UserError, match=message):
        experiment.load_data(make_config(**changes))


def test_a_run_from_before_noise_had_a_section_is_read(make_run):
    workdir = make_run()
    old = described(workdir)
    del old['config']['data']['noise']
    old['config']['data']['synthetic']['noise_rate'] = 0.125
    run_json.write_json(f'{workdir}/config.json', old)
    assert run_json.read_run(workdir).config.data.noise.rate == 0.125
