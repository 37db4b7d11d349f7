"""Whether a directory holds the run that is wanted, judged by its files."""

import json
import os

import pytest

from fer_jax import run_json
from fer_jax.config import default_config
from fer_jax.data.dataset import Dataset
from fer_jax.errors import UserError
from fer_jax.runs import finished, finished_folds, fold_config

MANIFEST = {'dataset': 'x', 'class_names': ['a', 'b'], 'checksum': '01'}


def leave(workdir, config, accuracy=0.5, written=None):
    workdir.mkdir(parents=True)
    entry = {'single': {'accuracy': accuracy}}
    (workdir / 'scores.json').write_text(json.dumps(dict.fromkeys(config.evaluation.splits, entry)))
    described = {
        'config': config.to_dict() if written is None else written,
        'manifest_hash': Dataset('', (), {}, MANIFEST).manifest_hash,
        'devices': {},
    }
    (workdir / 'config.json').write_text(json.dumps(described))


@pytest.fixture
def config(tmp_path):
    config = default_config()
    config.data.name = str(tmp_path / 'data')
    config.evaluation.splits = ('validation', 'test')
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'manifest.json').write_text(json.dumps(MANIFEST))
    return config


def test_a_run_is_finished_when_all_its_splits_are_read(tmp_path, config):
    assert finished(tmp_path / 'run', config, 'row') == {}
    leave(tmp_path / 'run', config)
    assert set(finished(tmp_path / 'run', config, 'row')) == {'validation', 'test'}
    config.evaluation.splits = ('test',)  # fewer than there are: the same run
    assert finished(tmp_path / 'run', config, 'row')
    leave(tmp_path / 'half', config)
    config.evaluation.splits = ()
    assert finished(tmp_path / 'none', config, 'row') == {}
    config.evaluation.splits = ('validation', 'test')
    assert finished(tmp_path / 'half', config, 'row') == {}


def test_another_run_is_refused(tmp_path, config):
    leave(tmp_path / 'run', config)
    config.train.ema = 0.5
    with pytest.raises(UserError, match='config.train.ema=0.0; row now has 0.5'):
        finished(tmp_path / 'run', config, 'row')
    config.train.ema = 0.0
    (tmp_path / 'data' / 'manifest.json').write_text(json.dumps(MANIFEST | {'checksum': '02'}))
    with pytest.raises(UserError, match='trained on other data'):
        finished(tmp_path / 'run', config, 'row')
    leave(tmp_path / 'broken', config, written=3)
    with pytest.raises(UserError, match='config.json'):
        finished(tmp_path / 'broken', config, 'row')


def test_a_run_from_before_a_field_was_there_has_its_default(tmp_path, config):
    old = config.to_dict()
    del old['data']['fold_by']
    leave(tmp_path / 'run', config, written=old)
    assert finished(tmp_path / 'run', config, 'row')
    config.data.fold_by = 'image'
    with pytest.raises(UserError, match="config.data.fold_by='subject'"):
        finished(tmp_path / 'run', config, 'row')


@pytest.mark.parametrize(('validation', 'splits'), [(True, ('validation', 'test')), (False, ('test',))])
def test_a_fold_reads_validation_where_it_has_one(config, validation, splits):
    config.data.fold_validation = validation
    config = config.lock()
    of_fold = fold_config(config, 2)
    assert (of_fold.data.fold, of_fold.evaluation.splits, of_fold.is_locked) == (2, splits, True)
    assert (config.data.fold, config.evaluation.splits) == (0, ('validation', 'test'))  # the original is as it was


def test_a_cross_validation_is_finished_when_its_summary_is_of_these_folds(tmp_path, config):
    config.data.folds = 3
    for fold in range(3):
        leave(tmp_path / f'fold{fold}', fold_config(config, fold), accuracy=0.5 + fold / 8)
    assert finished_folds(tmp_path, config, 'row') == {}
    summary = {'folds': [{'single': {'accuracy': 0.5 + fold / 8}} for fold in range(3)]}
    (tmp_path / 'folds.json').write_text(json.dumps(summary))
    assert finished_folds(tmp_path, config, 'row') == summary
    (tmp_path / 'folds.json').write_text(json.dumps({'folds': [*summary['folds'][:2], {'single': {'accuracy': 0.1}}]}))
    assert finished_folds(tmp_path, config, 'row') == {}  # of an earlier training of fold 2


@pytest.mark.parametrize(
    ('file', 'words'),
    [
        (os.path.join(os.path.dirname(run_json.__file__), 'train.py'), 'python -m fer_jax.train'),
        (
            os.path.join(os.path.dirname(run_json.__file__), '..', 'benchmarks', 'audit.py'),
            'python benchmarks/audit.py',
        ),
        (os.path.join(os.sep, 'home', 'somebody', 'own.py'), 'python own.py'),
    ],
)
def test_a_run_says_by_which_command_it_was_made_and_no_place_outside(file, words):
    assert run_json._command(file) == words
