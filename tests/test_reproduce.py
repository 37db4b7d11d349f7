"""A table from nothing to its markdown, by the real command on the embedded faces."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from fer_jax import reproduce as reproducing
from fer_jax import table_results
from fer_jax.errors import UserError
from fer_jax.reproduce import main
from fer_jax.table import Table

ROOT = Path(__file__).parents[1]
CONFIG = """
from fer_jax.config import default_config

def get_config():
    config = default_config()
    config.data.synthetic.num_train = 96
    config.data.synthetic.num_validation = 24
    config.data.synthetic.num_test = 40
    config.data.synthetic.size = 16
    config.train.steps = 4
    config.train.batch_size = 24
    config.evaluation.every_steps = 2
    config.evaluation.last = 2
    return config
"""
TABLE = """
from fer_jax.table import Table, TableRow

def get_table():
    return Table('Tiny', 'synthetic', 'drawn', [
        TableRow('one', '{config}', 'single', (0, 1), published=50.0, source='nobody'),
        TableRow('both', '{config}', 'ensemble', (0, 1)),
        TableRow('all', '{config}', 'pooled', (0, 1)),
        TableRow('last', '{config}', 'pooled', (0, 1), last=1),
        TableRow('big', '{config}', 'single', (8,), wants_gpu=True),
    ])
"""

FOLDS_CONFIG = """
from fer_jax.config import default_config

def get_config():
    config = default_config()
    config.data.name = 'data/ckplus'
    config.data.folds = 10
    config.data.size = 16
    config.train.epochs = 1000.0
    config.train.early_stopping = 5
    return config
"""
FOLDS_TABLE = """
from fer_jax.table import Table, TableRow

def get_table():
    row = TableRow('tiny', '{config}', 'single', published=99.7, source='a paper', fold_by=('image', 'subject'))
    return Table('CK+', 'ckplus', 'the folders', [row], notes='A note.')
"""


@pytest.fixture
def in_process(monkeypatch):
    """Runs the commands of `reproduce` here instead of in processes; notes them."""
    commands = []

    def run(command, **_):
        commands.append(command)
        module, *flags = command
        assert not importlib.import_module(module).main(flags)

    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    monkeypatch.setattr('fer_jax.reproduce._run', run)
    monkeypatch.setattr(jax, 'devices', lambda *_: jax.local_devices()[:1])
    monkeypatch.setattr('fer_jax.evaluate.write_report', lambda *_, **__: None)
    monkeypatch.setattr('fer_jax.crossvalidate.write_folds_report', lambda workdir: workdir)
    return commands


@pytest.fixture(scope='module')
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp('table')
    (folder / 'tiny.py').write_text(CONFIG)
    (folder / 'table.py').write_text(TABLE.format(config=folder / 'tiny.py'))
    return folder


def reproduce(folder, *flags):
    command = [
        sys.executable,
        '-m',
        'fer_jax.reproduce',
        f'--table={folder}/table.py',
        f'--output={folder}/out',
        *flags,
    ]
    environment = os.environ | {'XLA_FLAGS': '', 'JAX_PLATFORMS': 'cpu'}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_an_ensemble_of_runs_that_are_trained_anew_is_another():
    member = lambda step, accuracy: {'step': step, 'accuracy': accuracy}
    about = {'tta': 'flip', 'manifest': 'abc'}
    runs = [about | {'members': [member(2, 0.25), member(4, number / 8)]} for number in (5, 6)]
    pooled = about | {'members': [member(4, 0.6251), member(4, 0.75)]}
    assert table_results._same_members(pooled, runs, 1)
    for other in (
        {},
        pooled | {'tta': 'none'},
        pooled | {'manifest': 'abd'},
        pooled | {'members': [member(4, 0.625), member(4, 0.5)]},
        pooled | {'members': [member(2, 0.625), member(4, 0.75)]},
        pooled | {'members': pooled['members'][:1]},
    ):
        assert not table_results._same_members(other, runs, 1)
    assert not table_results._same_members(pooled, runs, 2)


def test_a_table_is_trained_once_and_says_what_the_scores_say(table, in_process, capsys, monkeypatch):
    whole, path, so_far = reproducing._run, table / 'out' / 'table.md', []

    def run(command, **more):
        so_far.append(path.read_text() if path.exists() else '')
        whole(command, **more)

    monkeypatch.setattr(reproducing, '_run', run)
    assert main([f'--table={table}/table.py', f'--output={table}/out']) == 0
    assert [words[0] for words in in_process] == ['fer_jax.train'] * 2 + ['fer_jax.evaluate'] * 4
    scores = [json.loads((table / f'out/tiny/seed{seed}/scores.json').read_text()) for seed in (0, 1)]
    lines = (table / 'out' / 'table.md').read_text().splitlines()
    for name, part in (('one', 'single'), ('both', 'ensemble')):
        mean = np.mean([100 * entry['test'][part]['accuracy'] for entry in scores])
        row = next(line for line in lines if line.startswith(f'| {name} '))
        assert f' {mean:.2f} ' in row
    (row,) = [line for line in so_far[1].splitlines() if line.startswith('| one ')]
    assert so_far[0] == '' and f' {100 * scores[0]["test"]["single"]["accuracy"]:.2f} ' in row  # after the first seed
    pooled = json.loads((table / 'out/pooled/tiny_last2_0_1/scores.json').read_text())
    assert pooled['test']['ensemble']['members'] == 4
    pooled = json.loads((table / 'out/pooled/tiny_last1_0_1/scores.json').read_text())
    assert [member['step'] for member in pooled['test']['members']] == [4, 4]
    printed, told = capsys.readouterr()
    assert "'big' wants a GPU and is not trained here" in told
    assert not (table / 'out' / 'tiny' / 'seed8').exists()

    before = {path: path.stat().st_mtime_ns for path in (table / 'out').rglob('scores.json')}
    again = reproduce(table)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in (table / 'out').rglob('scores.json')} == before
    assert again.stdout == printed[printed.index('# Tiny') :]


def test_bad_flags_are_one_line(table):
    for flag, says in (
        ('--rows=oen', "did you mean 'one'?"),
        ('--seeds=a', 'whole numbers'),
        ('--seeds=7', 'no row of this table'),
    ):
        done = reproduce(table, flag)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1 and says in done.stderr


def test_missing_data_says_what_to_obtain_and_where_to_put_it(table, tmp_path):
    (tmp_path / 'config.py').write_text(
        CONFIG.replace('return config', "config.data.name = 'data/nowhere'\n    return config")
    )
    text = TABLE.format(config=tmp_path / 'config.py').replace(
        "'synthetic', 'drawn', [", "'nowhere', 'from Nobody', place='data/sources/nowhere', rows=["
    )
    (tmp_path / 'absent.py').write_text(text)
    command = [sys.executable, '-m', 'fer_jax.reproduce', f'--table={tmp_path}/absent.py', f'--output={tmp_path}/out']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    head, obtain, then, now = done.stderr.splitlines()
    assert head == 'fer_jax.reproduce: error: data/nowhere is not there yet'
    assert obtain.split() == ['obtain', 'from', 'Nobody']
    assert 'put it in data/sources/nowhere, or give --source=PATH' in then
    assert '--rehearse' in now
    # The row is ready all the same.
    done = subprocess.run([*command, '--no-train'], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert '| one | 50.00 (nobody) | - | - | - | - | - | - | - | - |' in (tmp_path / 'out' / 'table.md').read_text()


def test_a_table_of_folds_is_rehearsed_from_drawing_to_table(tmp_path, in_process, capsys):
    (tmp_path / 'config.py').write_text(FOLDS_CONFIG)
    (tmp_path / 'table.py').write_text(FOLDS_TABLE.format(config=tmp_path / 'config.py'))
    command = [f'--table={tmp_path}/table.py', f'--output={tmp_path}/out', '--rehearse']
    assert main([*command, '--fold-by=subject']) == 0
    assert [words[0] for words in in_process] == ['fer_jax.rehearsal', 'fer_jax.prepare', 'fer_jax.crossvalidate']
    folds = json.loads((tmp_path / 'out' / 'config_fold_by=subject' / 'seed0' / 'folds.json').read_text())
    assert (folds['num_folds'], folds['num_examples'], folds['by'], folds['num_units']) == (3, 126, 'subject', 8)
    text = (tmp_path / 'out' / 'rehearsal.md').read_text()
    assert text in capsys.readouterr().out
    title, *_, row = text.splitlines()
    assert title == '# REHEARSAL, NO RESULT: CK+' and row.startswith('| REHEARSAL, NO RESULT: tiny |')
    assert f' {100 * folds["single"]["pooled"]["accuracy"]:.2f} (' in row
    # Nothing that could be read as a result: no published number, no difference, no table.md, no place among tables.
    assert '99.7' not in text and 'a paper' not in text and 'A note' not in text
    assert not (tmp_path / 'out' / 'table.md').exists()
    assert main([*command, '--fold-by=subject']) == 0
    assert 'is prepared already' not in capsys.readouterr().err
    assert main([*command, '--fold-by=subject', '--source=elsewhere']) == 0
    assert 'is prepared already; --source is not read' in capsys.readouterr().err
    assert len(in_process) == 3  # nothing is drawn, prepared or trained again


def test_a_drawing_that_stopped_half_way_is_drawn_anew(tmp_path, monkeypatch):
    def draw(command, **_):
        folder = Path(command[-1].removeprefix('--output='))
        assert not any(folder.iterdir())
        (folder / f'{status}.png').write_text('')
        if status:
            sys.exit(status)

    monkeypatch.setattr('fer_jax.reproduce._run', draw)
    table = Table('CK+', 'ckplus', 'the folders', [])
    for status in (137, 0):
        if status:
            with pytest.raises(SystemExit):
                reproducing._source(table, None, tmp_path, True)
            assert not (tmp_path / 'source').exists()
    assert reproducing._source(table, None, tmp_path, True) == str(tmp_path / 'source')
    assert [path.name for path in (tmp_path / 'source').iterdir()] == ['0.png']


def test_data_prepared_for_another_table_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'config.py').write_text(
        CONFIG.replace('return config', "config.data.name = 'data/affectnet'\n    return config")
    )
    (tmp_path / 'table.py').write_text(
        TABLE.format(config='config.py').replace("'synthetic', 'drawn', [", "'affectnet', 'granted', [")
    )
    (tmp_path / 'data' / 'affectnet').mkdir(parents=True)
    manifest = {'dataset': 'affectnet', 'options': {'classes': 7, 'split': [], 'seed': 0, 'votes': None}, 'align': None}
    (tmp_path / 'data' / 'affectnet' / 'manifest.json').write_text(json.dumps(manifest))
    with pytest.raises(UserError, match='prepared with classes 7, and this table wants 0; .* --overwrite'):
        main(['--table=table.py', '--output=out'])
