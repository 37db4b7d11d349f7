"""Table files: what is refused, what the flags leave, and what rows ask to be trained."""

import dataclasses

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.reproduce import _refuse_missing_units
from fer_jax.table import Table, TableRow
from fer_jax.tables import choose_rows, jobs_of, load_table

CONFIG = """
from fer_jax.config import default_config

def get_config(folds='0'):
    config = default_config()
    config.data.name = 'data/ckplus'
    config.data.folds = int(folds)
    return config
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / 'tiny.py').write_text(CONFIG)
    return str(tmp_path / 'tiny.py')


@pytest.mark.parametrize(
    ('row', 'message'),
    [
        ("TableRow('a', 'c', 'best')", "reads 'best'; it can be single, ensemble, pooled"),
        ("TableRow('a', 'c', 'single', last=2)", 'last=2, which only a pooled row reads'),
        ("TableRow('a', 'c', 'pooled', fold_by=('image',))", "reads 'pooled'; it can be single, ensemble"),
        ("TableRow('a', 'c', 'single', fold_by=('face',))", "has folds by 'face'; it can be image, sequence, subject"),
        ("TableRow('a', 'c', 'single', split='train')", "is measured on 'train'; it can be validation, test"),
        ("TableRow('a', 'c', 'single', split='validation', fold_by=('image',))", 'which is measured on test'),
        ("TableRow('a, b', 'c', 'single')", 'has a comma'),
        ("TableRow('a', 'c', 'single'), TableRow('a', 'd', 'single')", "two rows are named 'a'"),
        ("TableRow('a', 'c', 'single', publishd=1)", 'publishd'),
        ("TableRow('a', 'c', 'single', baselines=('b',))", "compared with 'b', which is no other row"),
        ("TableRow('a', 'c', 'single', baselines=('a',))", "compared with 'a', which is no other row"),
        (
            "TableRow('a', 'c', 'single'), TableRow('b', 'c', 'ensemble', baselines=('a',))",
            "'b' and 'a' differ in read",
        ),
        (
            "TableRow('a', 'c', 'pooled'), TableRow('b', 'c', 'pooled', baselines=('a',))",
            'only rows of a run per seed can be',
        ),
        ("TableRow('a', 'c', 'single', overrides={'data.extra': '{made}/x.csv'})", 'names {made}, which is no step'),
        ('1', 'at least one TableRow'),
    ],
)
def test_rows_that_cannot_be_are_refused(tmp_path, row, message):
    text = f"from fer_jax.table import Table, TableRow\ndef get_table():\n    return Table('T', 'd', 'o', [{row}])\n"
    (tmp_path / 'table.py').write_text(text)
    with pytest.raises(UserError, match=message):
        load_table(str(tmp_path / 'table.py'))


def test_a_table_may_take_an_argument(tmp_path):
    (tmp_path / 'table.py').write_text(
        'from fer_jax.table import Table, TableRow\ndef get_table(side="64"):\n'
        "    return Table(f'T at {side}', 'd', 'o', [TableRow('a', 'c', 'single')])\n"
    )
    assert load_table(str(tmp_path / 'table.py')).title == 'T at 64'
    assert load_table(f'{tmp_path}/table.py:128').title == 'T at 128'
    with pytest.raises(UserError, match=f'no table {tmp_path}/tabel.py;'):
        load_table(f'{tmp_path}/tabel.py:128')


def test_flags_of_prepare_belong_to_a_directory(tmp_path):
    (tmp_path / 'table.py').write_text(
        'from fer_jax.table import Table, TableRow\ndef get_table():\n'
        "    return Table('T', 'd', 'o', [TableRow('a', 'c', 'single')], prepare=('--align',))\n"
    )
    with pytest.raises(UserError, match='prepared directories and their flags are wanted'):
        load_table(str(tmp_path / 'table.py'))


ROWS = [
    TableRow('folds', 'f', 'single', (0, 1), fold_by=('image', 'subject')),
    TableRow('run', 'r', 'single', (1, 2)),
]


def test_flags_leave_rows_seeds_and_ways():
    table = Table('T', 'd', 'o', ROWS)
    assert choose_rows(table, None, None, None) == ROWS
    assert [row.name for row in choose_rows(table, 'run', None, None)] == ['run']
    assert [row.seeds for row in choose_rows(table, None, '1', None)] == [(1,), (1,)]
    (left,) = choose_rows(table, None, None, 'subject')
    assert (left.name, left.fold_by) == ('folds', ('subject',))
    published = dataclasses.replace(ROWS[0], published=99.2, source='a paper')
    for ways, there in (('image', (99.2, 'a paper')), ('subject', (None, '')), ('subject,image', (99.2, 'a paper'))):
        (left,) = choose_rows(dataclasses.replace(table, rows=[published]), None, None, ways)
        assert (left.published, left.source) == there  # of folds by image
    with pytest.raises(UserError, match="folds by 'sequence'; these are made by image, subject"):
        choose_rows(table, None, None, 'sequence')
    with pytest.raises(UserError, match='no row here is a cross-validation'):
        choose_rows(table, 'run', None, 'image')


def test_a_row_of_folds_asks_for_a_cross_validation_per_seed_and_way(config, tmp_path):
    row = TableRow(
        'a', f'{config}:10', 'single', (0, 1), {'optimizer.learning_rate': 0.1}, fold_by=('image', 'subject')
    )
    jobs = jobs_of(row, tmp_path)
    place = 'tiny_10_learning_rate=0.1_fold_by='
    assert [job.workdir.relative_to(tmp_path).as_posix() for job in jobs] == [
        f'{place}{by}/seed{seed}' for seed in (0, 1) for by in ('image', 'subject')
    ]
    assert {job.command()[0] for job in jobs} == {'fer_jax.crossvalidate'}
    last = jobs[-1].config()
    assert (last.seed, last.data.fold_by, last.data.folds, last.optimizer.learning_rate) == (1, 'subject', 10, 0.1)
    assert [path.name for path in jobs[0].runs()] == [f'fold{fold}' for fold in range(10)]
    assert jobs[0].results() == {}
    with pytest.raises(UserError, match='at least 3 are wanted'):
        jobs_of(TableRow('a', config, 'single', fold_by=('image',)), tmp_path)[0].config()
    with pytest.raises(UserError, match=r"row 'a': config.ensemble.members is 2, .* leave it at 1"):
        jobs_of(TableRow('a', config, 'single', overrides={'ensemble.members': 2}), tmp_path)[0].config()
    with pytest.raises(UserError, match='has to say how its folds are made'):
        jobs_of(TableRow('a', f'{config}:10', 'single'), tmp_path)[0].config()


def test_a_run_reads_test_unless_the_published_number_is_on_validation(config, tmp_path):
    splits = lambda **row: jobs_of(TableRow('a', config, 'single', **row), tmp_path)[0].config().evaluation.splits
    assert splits() == ('validation', 'test')
    assert splits(split='validation') == ('validation',)
    assert splits(overrides={'evaluation.splits': 'test'}) == ('test',)  # nothing is chosen


def test_folds_by_subject_of_data_without_subjects_are_refused_before_any_training(config, tmp_path):
    row = TableRow('a', f'{config}:10', 'single', (0,), fold_by=('image', 'subject', 'sequence'))
    jobs = jobs_of(row, tmp_path)
    empty = {'label': np.zeros(0, np.int32), 'id': np.zeros(0, str)}
    index = {'label': np.zeros(3, np.int32), 'id': np.array(['a', 'b', 'c'])}
    np.savez(tmp_path / 'index-test.npz', **empty)
    np.savez(tmp_path / 'index-train.npz', **index, subject=np.array(['', '', '']), sequence=np.array(['1', '1', '2']))
    with pytest.raises(UserError, match='names no subjects.*take --fold-by=image,sequence'):
        _refuse_missing_units(tmp_path, jobs)
    np.savez(tmp_path / 'index-train.npz', **index, subject=np.array(['x', '', 'y']))
    with pytest.raises(UserError, match='names no sequences.*take --fold-by=image,subject'):
        _refuse_missing_units(tmp_path, jobs)
    _refuse_missing_units(tmp_path, jobs[:2])
