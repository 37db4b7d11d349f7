"""The benchmark of FER2013's record: what its plan trains, and which runs it takes for done."""

import json

import pytest

from fer_jax.config import load_config
from fer_jax.errors import UserError
from tests.benchmarking import load_benchmark


@pytest.fixture
def record(monkeypatch):
    return load_benchmark('record', monkeypatch)


@pytest.mark.parametrize(
    ('plan', 'words'),
    [
        ('resnet18:2', "names 'resnet18'; there are resnet18_mix"),
        ('resnet18_mix', "has 'resnet18_mix'; RECIPE:SEEDS is wanted"),
        ('resnet18_mix:0', "has 'resnet18_mix:0'"),
        ('vgg19_mix:1,vgg19_mix:2', 'names vgg19_mix twice'),
        ('resnet10_taught:1', 'resnet10_taught has no teachers'),
        ('resnet10_taught:1,vgg19_mix:1', 'resnet10_taught has no teachers'),
    ],
)
def test_a_plan_that_cannot_be_is_one_line(record, plan, words):
    with pytest.raises(UserError, match=words):
        record.main([f'--plan={plan}'])


def configs(runs):
    return [load_config(run.words[0].removeprefix('--config='), run.words[1:]) for run in runs]


def test_those_that_are_taught_have_all_before_them_that_are_not_as_teachers(record, tmp_path):
    plan = record.read_plan('resnet18_mix:2,resnet10_taught:1,vgg19_mix:1,resnet18_taught:1')
    runs = record._runs(plan, tmp_path, ['--config.train.epochs=3.0'])
    first = [str(tmp_path / 'resnet18_mix' / f'seed{seed}') for seed in (0, 1)]
    found = configs(runs)
    assert [config.train.teachers for config in found] == [
        (), (), tuple(first), (), (*first, str(tmp_path / 'vgg19_mix' / 'seed0')),
    ]  # fmt: skip
    assert [config.seed for config in found] == [0, 1, 0, 0, 0]
    assert [config.model.name for config in found] == ['resnet18', 'resnet18', 'resnet10', 'vgg19', 'resnet18']
    assert {config.train.epochs for config in found} == {3.0}


def test_a_run_of_other_teachers_is_not_taken_for_done(record, tmp_path):
    data = tmp_path / 'data'
    run_of = lambda plan: record._runs(record.read_plan(plan), tmp_path, [f'--config.data.name={data}'])
    before = run_of('resnet18_mix:1,resnet10_taught:1')[-1]
    assert not before.done
    before.workdir.mkdir(parents=True)
    (config,) = configs([before])
    (before.workdir / 'config.json').write_text(
        json.dumps({'config': config.to_dict(), 'manifest_hash': 'x', 'devices': {}, 'manifest': {}})
    )
    (before.workdir / 'scores.json').write_text(json.dumps({'validation': {'single': {'accuracy': 0.5}}}))
    assert before.done
    with pytest.raises(UserError, match=r'was trained with config.train.teachers=.*; the plan now has'):
        run_of('resnet18_mix:2,resnet10_taught:1')[-1].done  # noqa: B018


def test_the_table_has_each_seed_their_mean_and_all_together(record):
    of_split = lambda *accuracies: {
        'members': [{'accuracy': accuracy} for accuracy in accuracies],
        'ensemble': {'accuracy': 0.75} if len(accuracies) > 1 else None,
    }
    scores = {
        'a': {'validation': of_split(0.7, 0.72), 'test': of_split(0.71, 0.73)},
        'b': {'validation': of_split(0.6), 'test': of_split(0.5)},
        'all': {'validation': of_split(0.7, 0.72, 0.6), 'test': of_split(0.71, 0.73, 0.5)},
    }
    # Student's t for 95 % and one degree of freedom is 12.706; the standard error of 70 and 72 is 1.
    assert record.table(scores).splitlines()[2:] == [
        '| a, each | 70.00 72.00 | 71.00 73.00 |',
        '| a, mean | 71.00 ± 12.71 | 72.00 ± 12.71 |',
        '| a, 2 together | 75.00 | 75.00 |',
        '| b, each | 60.00 | 50.00 |',
        '| b, mean | 60.00 | 50.00 |',
        '| all, 3 together | 75.00 | 75.00 |',
    ]
