"""A table from nothing to its markdown, by the real command on the embedded faces."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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
from fer_jax.config import Table, TableRow

def get_table():
    return Table('Tiny', 'synthetic', 'drawn', [
        TableRow('one', '{config}', 'single', (0, 1), published=50.0, source='nobody'),
        TableRow('both', '{config}', 'ensemble', (0, 1)),
        TableRow('all', '{config}', 'pooled', (0, 1)),
    ])
"""


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


def test_a_table_is_trained_once_and_says_what_the_scores_say(table):
    done = reproduce(table)
    assert done.returncode == 0, done.stderr
    scores = [json.loads((table / f'out/tiny/seed{seed}/scores.json').read_text()) for seed in (0, 1)]
    lines = (table / 'out' / 'table.md').read_text().splitlines()
    for name, part in (('one', 'single'), ('both', 'ensemble')):
        mean = np.mean([100 * entry['test'][part]['accuracy'] for entry in scores])
        row = next(line for line in lines if line.startswith(f'| {name} '))
        assert f' {mean:.2f} ' in row
    pooled = json.loads((table / 'out/pooled/tiny_0_1/scores.json').read_text())
    assert pooled['test']['ensemble']['members'] == 4

    before = {path: path.stat().st_mtime_ns for path in (table / 'out').rglob('scores.json')}
    again = reproduce(table)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in (table / 'out').rglob('scores.json')} == before
    assert again.stdout == done.stdout[done.stdout.index('# Tiny') :]


def test_bad_flags_are_one_line(table):
    for flag, says in (
        ('--rows=oen', "did you mean 'one'?"),
        ('--seeds=a', 'whole numbers'),
        ('--seeds=7', 'no row of this table'),
    ):
        done = reproduce(table, flag)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1 and says in done.stderr


def test_missing_data_says_how_to_get_it(table):
    (table / 'absent.py').write_text(TABLE.format(config=table / 'tiny.py').replace("'synthetic'", "'nowhere'"))
    command = [sys.executable, '-m', 'fer_jax.reproduce', f'--table={table}/absent.py']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and '--source=PATH' in done.stderr
