import dataclasses
import json
import os

import numpy as np
import pytest

from fer_jax import evaluate
from fer_jax.errors import UserError
from fer_jax.training.checkpoints import Checkpoints


def load(output, split='validation'):
    with np.load(os.path.join(output, 'predictions', f'{split}.npz')) as saved:
        return {name: saved[name] for name in saved.files}


def probabilities(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.fixture
def two_runs(make_run):
    """The same architecture twice and another one, with two checkpoints each."""
    return [
        make_run('a'),
        make_run('b', seed=1),
        make_run('c', model__name='wider_cnn', data__crop=10),
    ]


def test_members_of_several_runs_and_architectures_are_averaged(two_runs, tmp_path, dataset, capsys):
    output = str(tmp_path / 'together')
    scores = evaluate.evaluate_runs(two_runs, ['validation', 'test'], output, last=2)
    for split in ('validation', 'test'):
        found = load(output, split)
        assert found['steps'].tolist() == [4, 8] * 3
        assert found['member_names'].tolist() == ['a@4', 'a@8', 'b@4', 'b@8', 'c@4', 'c@8']
        np.testing.assert_array_equal(found['labels'], dataset.splits[split].labels)
        np.testing.assert_array_equal(found['ids'], dataset.splits[split].ids)
        for index, workdir in enumerate(two_runs):
            alone = str(tmp_path / f'alone{index}')
            evaluate.evaluate_runs([workdir], [split], alone, last=2)
            np.testing.assert_allclose(
                load(alone, split)['logits'], found['logits'][2 * index : 2 * index + 2], atol=1e-5
            )
        mean = probabilities(found['logits']).mean(0)
        accuracy = (mean.argmax(-1) == found['labels']).mean()
        assert scores[split]['ensemble']['accuracy'] == pytest.approx(accuracy)
    assert 'report.md' in capsys.readouterr().out


def test_without_last_the_best_checkpoint_of_each_run_is_taken(make_run, tmp_path, monkeypatch):
    workdir = make_run()
    for step, accuracy in ((4, 0.9), (8, 0.5)):
        path = os.path.join(workdir, 'checkpoints', str(step), 'position', 'metadata')
        with open(path) as file:
            position = json.load(file)
        position['metrics']['validation/accuracy'] = accuracy
        with open(path, 'w') as file:
            json.dump(position, file)
    monkeypatch.setattr(Checkpoints, '_verify', lambda *_: None)  # the figures above were changed on purpose
    evaluate.evaluate_runs([workdir], ['validation'], str(tmp_path / 'best'))
    assert load(tmp_path / 'best')['steps'].tolist() == [4]
    evaluate.evaluate_runs([workdir], ['validation'], str(tmp_path / 'last'), last=1)
    assert load(tmp_path / 'last')['steps'].tolist() == [8]


def test_both_splits_are_read_once_each(make_run, tmp_path):
    workdir, output = make_run(), tmp_path / 'both'
    assert evaluate.main([f'--runs={workdir}', '--split=validation,test,test', '--last=1', f'--output={output}']) == 0
    scores = json.loads((output / 'scores.json').read_text())
    assert {split: (entry['num_examples'], entry['readings']) for split, entry in scores.items()} == {
        'validation': (23, 1),
        'test': (17, 1),
    }


def test_a_run_may_not_be_named_twice(make_run, tmp_path):
    workdir = make_run()
    with pytest.raises(UserError, match='twice'):
        evaluate.evaluate_runs([workdir, workdir + '/'], ['validation'], str(tmp_path / 'x'), last=1)


def test_runs_that_do_not_fit_together_are_refused(make_run, make_dataset, tmp_path):
    one = make_run('one')
    fewer = make_run('fewer', data__drop=('fear',))
    with pytest.raises(UserError, match='differ in class names'):
        evaluate.evaluate_runs([one, fewer], ['validation'], str(tmp_path / 'x'))
    other = make_run('other', data=make_dataset(seed=1))
    with pytest.raises(UserError, match='differ in manifest hash'):
        evaluate.evaluate_runs([one, other], ['validation'], str(tmp_path / 'x'))
    with pytest.raises(UserError, match='trained on other data'):  # the data set is now the other one
        evaluate.evaluate_runs([one], ['validation'], str(tmp_path / 'x'))
    assert not (tmp_path / 'x').exists()


def test_what_is_not_there_is_said(make_run, tmp_path):
    workdir = make_run()
    with pytest.raises(UserError, match='has 2 of the 3 members asked for; take --last=2'):
        evaluate.evaluate_runs([workdir], ['validation'], str(tmp_path / 'x'), last=3)
    with pytest.raises(UserError, match='keeps its last 3 members, 4 are asked for'):
        evaluate.evaluate_runs([workdir], ['validation'], str(tmp_path / 'x'), last=4)
    with pytest.raises(UserError, match='nowhere is no run'):
        evaluate.evaluate_runs([str(tmp_path / 'nowhere')], ['validation'], str(tmp_path / 'x'))
    with pytest.raises(UserError, match='--last=-1'):
        evaluate.main(['--runs=a', '--last=-1', '--output=x'])
    with pytest.raises(UserError, match="'train'"):
        evaluate.main(['--runs=a', '--split=train', '--output=x'])


def test_a_damaged_member_is_refused(make_run, tmp_path):
    workdir = make_run()
    os.truncate(os.path.join(workdir, 'checkpoints', '8', 'checksums.json'), 10)
    with pytest.raises(UserError, match='checksums.json'):
        evaluate.evaluate_runs([workdir], ['validation'], str(tmp_path / 'x'), last=1)


def test_twins_are_marked_and_never_removed(make_run, make_dataset, tmp_path, monkeypatch):
    data = make_dataset()
    hashes = data.splits['validation'].pixel_hashes.copy()
    hashes[:5] = data.splits['train'].pixel_hashes[:5]
    validation = dataclasses.replace(data.splits['validation'], pixel_hashes=hashes)
    data = dataclasses.replace(data, splits={**data.splits, 'validation': validation})
    workdir = make_run('run', data=make_dataset())
    with monkeypatch.context() as patch:
        patch.setattr('fer_jax.experiment.load_prepared', lambda _: data)
        evaluate.evaluate_runs([workdir], ['validation'], str(tmp_path / 'twins'))
    assert load(tmp_path / 'twins')['twin_in_train'].tolist() == [True] * 5 + [False] * 18
