"""The study's arms differ in the training images and in nothing else, on each of its data sets."""

import csv
import importlib
import json
import os

import jax
import numpy as np
import pytest

from fer_jax import evidence, reproduce
from fer_jax.at_once import Failure
from fer_jax.config import flatten, load_config
from fer_jax.data.synthetic import load_synthetic
from fer_jax.evaluation.predictions import load_predictions
from fer_jax.tables import jobs_of, load_table

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
STUDIES = ('fer2013', 'fer2013_brief', 'affectnet', 'synthetic')
MAY_DIFFER = {'data.exclude', 'data.extra'}


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(params=STUDIES)
def table(request):
    return load_table(f'configs/tables/gan_study.py:{request.param}')


def test_without_an_argument_it_is_fer2013s():
    assert load_table('configs/tables/gan_study.py') == load_table('configs/tables/gan_study.py:fer2013')


def test_arms_differ_in_what_is_left_out_and_added_alone(table, tmp_path):
    jobs = [jobs_of(row, tmp_path, table=table) for row in table.rows]
    assert len({row.name for row in table.rows}) == len(table.rows) >= 10
    first = [flatten(job.config()) for job in jobs[0]]
    assert [fields['seed'] for fields in first] == [0, 1, 2]
    assert all(not fields[name] for fields in first for name in MAY_DIFFER)
    for arm in jobs[1:]:
        for base, job in zip(first, arm, strict=True):
            fields = flatten(job.config())
            assert {name for name in fields if fields[name] != base[name]} <= MAY_DIFFER
            assert fields['data.exclude']
            # In epochs, an arm with fewer images would be trained less.
            assert fields['train.steps'] and fields['evaluation.every_steps']
    assert len({job.workdir for arm in jobs for job in arm}) == 3 * len(table.rows)


def test_at_once_an_arm_waits_for_what_it_is_trained_without_and_not_for_the_filter_of_the_table(
    tmp_path, monkeypatch, capsys
):
    works, result = [], (0, {})
    monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
    monkeypatch.setattr(reproduce, 'run_at_once', lambda given, slots, _: works.append((given, slots)) or result)
    flags = ['--table=configs/tables/gan_study.py:synthetic', f'--output={tmp_path}', '--seeds=1', '--at-once=3']
    assert reproduce.main(flags) == 0
    given, slots = works.pop()
    assert len(slots) == 3 and all(slot['XLA_PYTHON_CLIENT_PREALLOCATE'] == 'false' for slot in slots)
    short = lambda name: name.replace(f'{tmp_path}/', '').replace('recogniser_synthetic', 'arm')
    after = {short(work.name): [short(name) for name in work.after] for work in given}
    assert len(after) == 8 + 10
    assert after['run arm/seed1'] == after['step steps/pairs/all'] == []
    assert after['step steps/random/seed1'] == ['step steps/ssim/all']
    assert after['run arm_exclude=ssim-ssim.csv/seed1'] == ['step steps/ssim/all']
    both = after['run arm_exclude=ssim-ssim.csv_extra=generated-translations.csv/seed1']
    assert sorted(both) == ['step steps/generated/seed1', 'step steps/ssim/all']
    assert after['step steps/filtered/all'] == ['step steps/ssim/all', 'step steps/pairs/all']
    for code, ended in ((2, 2), (-9, 1)):
        result = (0, {'step pairs': Failure(f'ended with {code}, no such face', code)})
        assert reproduce.main(flags) == ended
        told = capsys.readouterr()
        assert f'error: step pairs: ended with {code}, no such face' in told.err and '(a) all' in told.out
    result = (15, {})
    with pytest.raises(SystemExit, match='143'):
        reproduce.main(flags)


def test_every_arm_is_read_alike_and_compared_with_the_first(table):
    assert {(row.read, row.split, row.seeds, row.filtered) for row in table.rows} == {
        ('single', 'test', (0, 1, 2), '{filtered}/ssim.csv')
    }
    first, *arms = table.rows
    assert first.baselines == () and all(row.baselines[0] == first.name for row in arms)


def test_generated_images_and_copies_are_without_the_same_images_and_as_many(table, tmp_path):
    (generated,) = [row for row in table.rows if 'plus generated' in row.name]
    (copies,) = [row for row in table.rows if 'plus copies' in row.name]
    for one, other in zip(*(jobs_of(row, tmp_path, table=table) for row in (generated, copies)), strict=True):
        assert one.config().data.exclude == other.config().data.exclude
        made, copied = one.steps['generated'].command(), other.steps['copies'].command()
        exclude = f'--exclude={one.config().data.exclude[0]}'
        assert exclude in made and exclude in copied
        assert f'--copies-of={one.config().data.extra[0]}' in copied


def test_all_audits_flag_the_same_share_and_what_has_a_seed_is_made_with_it(table, tmp_path):
    jobs = [job for row in table.rows for job in jobs_of(row, tmp_path, table=table)]
    shares = {word for job in jobs for step in job.steps.values() for word in step.command() if word[:8] == '--share='}
    assert len(shares) == 1
    once = 'synthetic' in table.dataset or 'minutes' in table.title
    shared = {'pairs', 'ssim', 'seeds_ssim', 'filtered'} if once else set()
    for job in jobs:
        for name, step in job.steps.items():
            seed, place = (0, 'all') if name in shared else (job.seed, f'seed{job.seed}')
            assert step.directory.name == place
            seeds = {word for word in step.command() if word.partition('=')[0] in ('--seed', '--config.seed')}
            assert seeds and all(word.endswith(f'={seed}') for word in seeds) or name in ('filtered',)
            others = {f'seed{other}/' for other in (0, 1, 2)} - {f'seed{job.seed}/'}
            assert not any(other in f'{word}/' for word in step.command() for other in others)


def test_what_the_audits_train_goes_by_no_validation_image(table, tmp_path):
    (row,) = [row for row in table.rows if row.name == '(d) aum']
    flags = [word for word in jobs_of(row, tmp_path, table=table)[0].steps['audits'].command() if '--config' in word]
    config = load_config(flags[0].partition('=')[2], flags[1:])
    folds = evidence.fold_config(evidence.audited_config(config), load_synthetic(8, 1, 1, size=8), 5)
    assert folds.train.steps > 0 and folds.train.early_stopping == 0
    arm = flatten(load_config(row.config))
    differs = {name for name, value in flatten(config).items() if value != arm[name]}
    assert differs <= {'schedule.name', 'train.steps', 'seed'}


@pytest.mark.parametrize('data', STUDIES)
def test_pairs_see_the_training_images_of_the_arms(data):
    pairs = flatten(load_config(f'configs/gan_study/pairs.py:{data}'))
    arms = flatten(load_config(f'configs/gan_study/recogniser.py:{data}'))
    assert {name for name in arms if name[:5] == 'data.' and arms[name] != pairs[name]} <= {'data.normalize'}


SHOWN = (
    '(a) all',
    "(b') without as many at random",
    '(c) without flagged plus generated',
    "(c') without flagged plus copies",
)


@pytest.fixture
def in_process(monkeypatch):
    """Runs the commands of `reproduce` here, without pictures; notes them."""
    commands = []

    def run(command, **_):
        commands.append(command[0].removeprefix('fer_jax.'))
        assert not importlib.import_module(command[0]).main(command[1:])

    monkeypatch.setattr('fer_jax.reproduce._run', run)
    monkeypatch.setattr(jax, 'devices', lambda *_: jax.local_devices()[:1])
    for name in ('evaluate.write_report', 'crossvalidate.write_folds_report', 'translate.translations_grid'):
        monkeypatch.setattr(f'fer_jax.{name}', lambda *_, **__: '')
    monkeypatch.setattr('fer_jax.audit.write_audit_report', lambda *_: '')
    monkeypatch.setattr('fer_jax.data.deriving.usable_cores', lambda: 1)
    return commands


def table_rows(text):
    """The cells of the first table by row and column; of a row's several lines the first."""
    lines = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines() if line[:1] == '|']
    header = lines[0]
    rows = [dict(zip(header, line, strict=True)) for line in lines[2:] if len(line) == len(header)]
    return {row['row'].removeprefix('REHEARSAL, NO RESULT: '): row for row in reversed(rows)}


def test_the_whole_study_is_rehearsed_on_drawn_faces(tmp_path, in_process, capsys):
    flags = ['--table=configs/tables/gan_study.py:synthetic', f'--output={tmp_path}', '--rehearse']
    flags += [f'--rows={",".join(SHOWN)}']
    assert reproduce.main(flags) == 0
    steps = ['train', 'audit', 'filter_validation', 'audit', 'translate', 'translate']
    assert sorted(in_process) == sorted([*steps, *['train'] * len(SHOWN)])
    text = (tmp_path / 'rehearsal.md').read_text()
    assert text in capsys.readouterr().out and text.startswith('# REHEARSAL, NO RESULT: The study: drawn faces')
    rows = table_rows(text)
    trained = {name: int(rows[name]['trained on']) for name in SHOWN}
    flagged = round(0.2 * trained['(a) all'])
    assert rows['(a) all']['left out'] == '-'
    for name in SHOWN[1:]:
        assert rows[name]['left out'] == str(flagged) and '%' in rows[name]['wrong among them']
        added = 12 if 'plus' in name else 0
        assert rows[name]['added'] == (str(added) if added else '-')
        assert trained[name] == trained['(a) all'] - flagged + added

    # The filtered number of arm (a) by hand.
    run = tmp_path / 'recogniser_synthetic' / 'seed0'
    said = load_predictions(run / 'predictions' / 'validation.npz')
    with open(tmp_path / 'steps' / 'filtered' / 'all' / 'ssim.csv') as file:
        flag = {row['id']: row['flag'] == '1' for row in csv.DictReader(file)}
    kept = np.array([not flag[identity] for identity in said.ids])
    right = said.logits[0].argmax(1) == said.labels
    assert rows['(a) all']['validation'] == f'{100 * right.mean():.2f}'
    shown = f'*{100 * right[kept].mean():.2f} on {100 * kept.mean():.1f} % of it*'
    assert rows['(a) all']['*filtered* validation, no result'] == shown
    scores = json.loads((run / 'scores.json').read_text())
    assert scores['validation']['num_examples'] == len(said.ids)  # the honest number is of all

    in_process.clear()
    assert reproduce.main(flags) == 0
    assert in_process == [] and (tmp_path / 'rehearsal.md').read_text() == text
