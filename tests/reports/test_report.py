import dataclasses
import json
import re

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.evaluation.predictions import Predictions, save_predictions
from fer_jax.evaluation.scores import read_scores, score_predictions, update_scores_file
from fer_jax.reports.report import write_report

NAMES = ['anger', 'fear', 'happiness']


def make_predictions(members, seed, examples=60):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, examples).astype(np.int32)
    logits = generator.normal(size=(members, examples, 3)).astype(np.float32)
    logits[:, np.arange(examples), labels] += 1
    return Predictions(
        ids=np.array([f'face_{i}' for i in range(examples)]),
        labels=labels,
        logits=logits,
        steps=np.arange(1, members + 1) * 1000,
        class_names=np.array(NAMES),
        twin_in_train=np.arange(examples) < 5,
        member_names=np.array([f'run_seed0@{1000 * (m + 1)}' for m in range(members)]),
        member_runs=np.array(['checkpoints/run_seed0'] * members),
    )


def evaluate(directory, split, predictions, validation):
    save_predictions(directory / 'predictions' / f'{split}.npz', predictions)
    entry = score_predictions(predictions, validation, dataset='toyfaces', manifest='feedbeef')
    update_scores_file(directory / 'scores.json', split, entry)


@pytest.fixture
def workdir(tmp_path):
    config = {
        'config': {'model': {'name': 'shallow'}},
        'command': 'python -m fer_jax.train --config=configs/toy.py',
        'seed': 7,
        'seconds': 754,
        'versions': {'jax': '0.10.2'},
        'devices': {'count': 1, 'platform': 'gpu', 'kind': 'NVIDIA H200'},
        'manifest': {'counts': {'train': {'anger': 9, 'fear': 4}, 'test': {'anger': 3}}, 'class_names': NAMES},
        'manifest_hash': 'feedbeef',
        'git_revision': 'abc1234',
        'model_summary': {'parameters': 1234567, 'flops_per_image': 6.02e7, 'train_flops_per_image': 1.8e8},
    }
    (tmp_path / 'config.json').write_text(json.dumps(config))
    validation = make_predictions(3, seed=1)
    evaluate(tmp_path, 'validation', validation, validation)
    return tmp_path


def linked_figures(report):
    return re.findall(r'!\[[^]]*\]\((figures/[^)]+)\)', report)


def test_report_holds_the_numbers_of_the_scores(workdir):
    validation, test = make_predictions(3, seed=1), make_predictions(3, seed=2)
    evaluate(workdir, 'test', test, validation)
    evaluate(workdir, 'test', test, validation)
    (workdir / 'metrics.jsonl').write_text('{"step": 1, "epoch": 1.0, "validation/accuracy": 0.5}\n')
    images = {'test': np.zeros((60, 48, 48, 1), np.uint8)}
    report = write_report(workdir, images).read_text()
    scores = read_scores(workdir / 'scores.json')
    for split in ('validation', 'test'):
        for kind in ('single', 'ensemble'):
            of = scores[split][kind]
            low, high = of['accuracy_ci95']
            line = (
                f'| {100 * of["accuracy"]:.2f} | {100 * low:.2f} to {100 * high:.2f} | {of["macro_f1"]:.4f} '
                f'| {of["nll"]:.4f} | {100 * of["ece"]:.2f} | {100 * of["accuracy_without_twins"]:.2f} | 60 | 5 |'
            )
            assert line in report
    for name, of in scores['test']['ensemble']['per_class'].items():
        assert f'| {name} | {of["support"]} | {of["precision"]:.4f} | {of["recall"]:.4f} | {of["f1"]:.4f} |' in report
    chosen = scores['validation']['single']
    assert f'single member of 3, {chosen["name"]}, was chosen by its accuracy on validation' in report
    assert 'Test was read 2 times' in report and 'Validation was read once' in report
    for fact in (
        'configs/toy.py',
        '1,234,567',
        '60.20 M',
        '180.00 M',
        '1 x NVIDIA H200',
        'feedbeef',
        'abc1234',
        '13 min',
    ):
        assert fact in report
    assert '| seed | 7 |' in report and 'jax 0.10.2' in report
    links = linked_figures(report)
    assert {'figures/history.png', 'figures/class_counts.png', 'figures/test_faces.png'} < set(links)
    assert 'figures/validation_faces.png' not in links
    assert sorted(links) == sorted(f'figures/{file.name}' for file in (workdir / 'figures').iterdir())


def test_without_predictions_the_tables_stand_and_mark_the_chosen_member(workdir):
    (workdir / 'predictions' / 'validation.npz').unlink()
    report = write_report(workdir).read_text()
    assert linked_figures(report) == ['figures/class_counts.png']
    entry = read_scores(workdir / 'scores.json')['validation']
    marked = re.findall(r'^\| (\S+) \|.*\| best single \|$', report, re.MULTILINE)
    assert marked == [entry['single']['name']]
    assert f'| {entry["members"][0]["name"]} | checkpoints/run_seed0 | 1,000 | ' in report


def test_bare_evaluation_of_one_member(tmp_path):
    (tmp_path / 'config.json').write_text('{}')
    one = make_predictions(1, seed=1, examples=5)
    evaluate(tmp_path, 'validation', dataclasses.replace(one, twin_in_train=np.ones(5, bool)), one)
    report = write_report(tmp_path).read_text()
    assert 'There is one member, run_seed0@1000' in report and 'Test has not been read' in report
    assert 'only member' in report and 'ensemble of' not in report and '## Model' not in report
    assert '| - | 5 | 5 |' in report
    names = {file.name for file in (tmp_path / 'figures').iterdir()}
    assert 'validation_f1_per_class.png' in names and not {'history.png', 'validation_recall.png'} & names


def test_scores_of_earlier_members_are_said_to_be_so(workdir):
    anew = make_predictions(2, seed=5)
    save_predictions(workdir / 'predictions' / 'validation.npz', anew)
    evaluate(workdir, 'test', make_predictions(2, seed=6), anew)
    report = write_report(workdir).read_text()
    assert 'The scores on validation are of an earlier evaluation with other members' in report
    links = linked_figures(report)
    assert any('test_' in link for link in links) and not any('validation_' in link for link in links)
    assert '| run_seed0@3000 | checkpoints/run_seed0 | 3,000 |' in report


def test_images_of_another_number_are_refused(workdir):
    with pytest.raises(UserError, match='59 images but 60 predictions'):
        write_report(workdir, {'validation': np.zeros((59, 48, 48, 1), np.uint8)})


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('config.json', None, 'config.json does not exist'),
        ('config.json', '{"seed": ', 'config.json is not JSON'),
        ('config.json', '[]', 'config.json holds no JSON object'),
        ('scores.json', None, 'scores.json does not exist'),
        ('scores.json', '{}', 'scores.json holds no split'),
    ],
)
def test_missing_and_damaged_files_are_named(workdir, name, content, message):
    (workdir / name).unlink()
    if content is not None:
        (workdir / name).write_text(content)
    with pytest.raises(UserError, match=message):
        write_report(workdir)
