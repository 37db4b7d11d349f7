"""The drawn layouts are read by the real readers, and every table of the project can be shortened."""

from pathlib import Path

import numpy as np
import pytest

from fer_jax import checks, prepare, rehearsal
from fer_jax.config import load_config
from fer_jax.data.prepared import read_manifest
from fer_jax.errors import UserError
from fer_jax.tables import jobs_of, load_table

CONFIG = """
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


@pytest.mark.parametrize(
    ('name', 'flags', 'counts', 'classes'),
    [
        ('ckplus', {}, {'train': 126}, 7),
        ('affectnet', {}, {'train': 96, 'validation': 32}, 8),
        ('rafdb', {'dataset': 'folder'}, {'train': 84, 'test': 35}, 7),
        ('fer2013', {}, {'train': 112, 'validation': 35, 'test': 35}, 7),
        ('ferplus', {}, {'train': 112, 'validation': 35, 'test': 35}, 8),
    ],
)
def test_every_drawn_layout_is_read_whole(tmp_path, name, flags, counts, classes):
    rehearsal.LAYOUTS[name](tmp_path / 'source')
    prepare.prepare(flags.get('dataset', name), tmp_path / 'source', tmp_path / 'data')
    manifest = read_manifest(tmp_path / 'data')
    assert (manifest['rejected'], manifest['accepted']) == (0, sum(counts.values()))
    found = {split: sum(of_class.values()) for split, of_class in manifest['counts'].items()}
    assert {split: count for split, count in found.items() if count} == counts
    assert all(manifest['counts']['train'].values()) and len(manifest['class_names']) == classes
    if name == 'ckplus':
        with np.load(tmp_path / 'data' / 'index-train.npz') as index:
            assert len(set(index['subject'])) == 8 and (np.unique(index['sequence'], return_counts=True)[1] >= 2).all()


def test_drawing_refuses_what_it_does_not_know_and_what_is_there(tmp_path):
    with pytest.raises(UserError, match='cannot be drawn; these can: affectnet, ckplus'):
        rehearsal.main(['--dataset=imagenet', f'--output={tmp_path}/x'])
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='empty or new directory'):
        rehearsal.main(['--dataset=ckplus', f'--output={tmp_path}'])


TABLES = Path(__file__).parents[1] / 'configs' / 'tables'


@pytest.mark.parametrize(
    'name',
    [*sorted(path.name for path in TABLES.glob('*.py')), 'gan_study.py:affectnet', 'gan_study.py:synthetic'],
)
def test_every_table_of_the_project_can_be_trained_and_rehearsed(name, tmp_path):
    table = load_table(str(TABLES / name))
    drawn = table.dataset == 'synthetic'
    assert drawn or table.dataset in rehearsal.LAYOUTS
    for row in table.rows:
        for job in jobs_of(row, tmp_path, table=table):
            checks.check_config(job.config())
            assert job.data in {'synthetic' if drawn else f'data/{table.dataset}', *table.prepare}
            assert job.config().data.name == job.data
            assert row.split in job.config().evaluation.splits or job.by
        for job in jobs_of(row, tmp_path, rehearse=True, table=table):
            checks.check_config(job.config())
            assert job.seed == row.seeds[0]
            place = 'synthetic' if drawn else str(tmp_path / 'data' / job.data[5:])
            assert (job.config().train.steps, job.config().data.name) == (2, place)


def test_a_rehearsed_run_is_the_row_but_for_its_length(tmp_path):
    (tmp_path / 'config.py').write_text(CONFIG)
    full = load_config(str(tmp_path / 'config.py'))
    flags = [f'--config.{name}={value}' for name, value in rehearsal.changes(full, tmp_path).items()]
    short = load_config(str(tmp_path / 'config.py'), flags)
    assert (short.train.steps, short.train.early_stopping, short.data.folds) == (2, 0, 3)
    assert short.data.name == str(tmp_path / 'data' / 'ckplus')
    assert (short.data.size, short.model, short.optimizer) == (16, full.model, full.optimizer)
