"""The audit's benchmark: cell by cell, going on where it stopped, with a table of what is there."""

import json
from pathlib import Path

import numpy as np
import pytest

from fer_jax import experiment
from fer_jax.data.dataset import EMOTIONS
from fer_jax.data.pairs import select_pair
from fer_jax.errors import UserError
from fer_jax.several import pair_config, read_pairs
from fer_jax.tasks import cyclegan
from fer_jax.training.stopping import Stopped
from tests.benchmarking import load_benchmark


@pytest.fixture
def benchmark(monkeypatch):
    return load_benchmark('audit', monkeypatch)


@pytest.fixture
def flags(tmp_path, monkeypatch, make_dataset):
    data = make_dataset((400, 8, 8), side=24, classes=EMOTIONS)
    monkeypatch.setattr(experiment, 'load_prepared', lambda _: data)
    for name in ('write_audit_report', 'write_review_page'):
        monkeypatch.setattr(f'fer_jax.audit.{name}', lambda *_, **__: '')
    return ['--data=fer2013', '--methods=random', f'--output={tmp_path}']


def table_of(text):
    lines = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.split('\n\n')[0].splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_a_stopped_benchmark_goes_on_and_its_table_has_what_is_there(benchmark, flags, tmp_path, monkeypatch, capsys):
    flags += ['--kinds=symmetric', '--rates=.2', '--seeds=0,1,2']
    real, audited = benchmark.audit, []

    def audit(config, methods, output, options):
        audited.append(output)
        if len(audited) == 3:
            raise Stopped(15, 7)
        return real(config, methods, output, options)

    monkeypatch.setattr(benchmark, 'audit', audit)
    assert benchmark.main(flags) == 143
    (row,) = table_of((tmp_path / 'fer2013' / 'table.md').read_text())
    assert len(row['per seed'].split()) == 2
    assert benchmark.main(flags) == 0
    assert [Path(output).name[-1] for output in audited] == ['0', '1', '2', '2']
    (row,) = table_of((tmp_path / 'fer2013' / 'table.md').read_text())
    said = [json.loads(path.read_text())['methods']['random'] for path in sorted(tmp_path.glob('*/*/audit.json'))]
    assert len({of['sha256'] for of in said}) == 3
    found = [of['detection']['auroc'] for of in said]
    assert row['per seed'] == ' '.join(f'{value:.4f}' for value in found)
    assert row['AUROC'].split()[0] == f'{np.mean(found):.4f}'
    assert row['F1'] == f'{np.mean([of["detection"]["flags"]["f1"] for of in said]):.3f}'
    assert row['F1 at the true rate'] == f'{np.mean([of["detection"]["true_rate"]["f1"] for of in said]):.3f}'
    assert row['scored'] == '100 %'
    assert said[0]['flagged'] == said[0]['detection']['wrong'] == 80
    capsys.readouterr()
    assert benchmark.main([*flags, '--table']) == 0
    assert row['AUROC'] in capsys.readouterr().out
    with pytest.raises(UserError, match='symmetric_20_seed0 was done with train.epochs=8.0, and now it would be 2.0'):
        benchmark.main([*flags, '--table', '--config.train.epochs=2'])


def test_confusion_noise_has_the_odds_of_a_classifier_of_clean_labels(benchmark, flags, tmp_path, monkeypatch):
    trained = []

    def train(config, workdir):
        trained.append((config.data.noise.rate, config.evaluation.splits))
        Path(workdir).mkdir(parents=True)
        table = np.eye(8)
        table[1, 2] = 1  # contempt is read as disgust, and nothing else is confused
        names = list(experiment.load_data(config).class_names)
        scores = {'class_names': names, 'ensemble': {'confusion': table.tolist()}}
        (Path(workdir) / 'scores.json').write_text(json.dumps({'validation': scores}))

    monkeypatch.setattr(benchmark.train, 'train', train)
    assert benchmark.main([*flags, '--kinds=confusion', '--rates=.1', '--seeds=0']) == 0
    assert trained == [(0.0, ('validation',))]
    told = json.loads((tmp_path / 'fer2013' / 'confusion_10_seed0' / 'audit.json').read_text())
    classes = told['methods']['random']['detection']['per_class']
    assert {name for name, of in classes.items() if of['wrong']} == {'disgust'}


@pytest.mark.parametrize('file', ['configs/gan_study/pairs.py:all_drawn', 'configs/gan_study/pairs.py:fer2013'])
def test_pairs_are_trained_on_the_labels_of_the_cell(benchmark, flags, file, tmp_path):
    config = benchmark.load_config('configs/audit/fer2013.py', [])
    config = benchmark.Cell('symmetric', 0.3, 2, tmp_path / 'cell').configure(config)
    wanted = benchmark._pairs_of(config, file)
    pairs, dataset = read_pairs(wanted), experiment.load_data(wanted)
    np.testing.assert_array_equal(dataset.splits['train'].labels, experiment.load_data(config).splits['train'].labels)
    for pair in pairs:
        cyclegan.check_config(pair_config(wanted, pair))
        select_pair(dataset, pair)
    there = {'fer2013': set(dataset.class_names) - {'contempt'}}.get(file.partition(':')[2], set(dataset.class_names))
    assert {name for pair in pairs for name in pair} == there
    assert wanted.seed == 2


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (['--methods=magic'], "--methods: there is no 'magic'; there are ssim, "),
        (['--kinds=none'], "--kinds: there is no 'none'; there are symmetric, confusion"),
        (['--methods=ssim'], 'ssim goes by pairs; give --pairs=FILE'),
        (['--rates=20'], '--rates=20: shares of the labels are wanted'),
        (['--seeds=a'], '--seeds=a: numbers with commas are wanted'),
        (['--rate=.1'], 'did you mean --rates'),
    ],
)
def test_what_cannot_be_is_one_line(benchmark, flags, more, message):
    with pytest.raises(UserError, match=message) as caught:
        benchmark.main([*flags, *more])
    assert '\n' not in str(caught.value)
