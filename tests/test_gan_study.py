"""The study's arms differ in the training images and in nothing else, on each of its three data sets."""

import os

import pytest

from fer_jax.config import flatten, load_config
from fer_jax.tables import jobs_of, load_table

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
STUDIES = ('fer2013', 'affectnet', 'synthetic')
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
    assert len({row.name for row in table.rows}) == 10
    first = [flatten(job.config()) for job in jobs[0]]
    assert [fields['seed'] for fields in first] == [0, 1, 2]
    assert all(not fields[name] for fields in first for name in MAY_DIFFER)
    for arm in jobs[1:]:
        for base, job in zip(first, arm, strict=True):
            fields = flatten(job.config())
            assert {name for name in fields if fields[name] != base[name]} <= MAY_DIFFER
            assert fields['data.exclude']
    assert len({job.workdir for arm in jobs for job in arm}) == 30


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


def test_all_audits_flag_the_same_share_and_everything_is_of_its_own_seed(table, tmp_path):
    jobs = [job for row in table.rows for job in jobs_of(row, tmp_path, table=table)]
    shares = {word for job in jobs for step in job.steps.values() for word in step.command() if word[:8] == '--share='}
    assert len(shares) == 1
    for job in jobs:
        for step in job.steps.values():
            assert step.directory.name == f'seed{job.seed}'
            seeds = {word for word in step.command() if word.partition('=')[0] in ('--seed', '--config.seed')}
            assert all(word.endswith(f'={job.seed}') for word in seeds)
            others = {f'seed{seed}/' for seed in (0, 1, 2)} - {f'seed{job.seed}/'}
            assert not any(other in f'{word}/' for word in step.command() for other in others)


@pytest.mark.parametrize('data', STUDIES)
def test_pairs_see_the_training_images_of_the_arms(data):
    pairs = flatten(load_config(f'configs/gan_study/pairs.py:{data}'))
    arms = flatten(load_config(f'configs/gan_study/recogniser.py:{data}'))
    assert {name for name in arms if name[:5] == 'data.' and arms[name] != pairs[name]} <= {'data.normalize'}
