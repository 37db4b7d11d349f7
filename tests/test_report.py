"""The command on trained runs: saliency maps made once and kept, and words where data or checkpoints are gone."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax import evaluate, experiment, report, run_json
from fer_jax.errors import UserError
from fer_jax.evaluation.inference import stack_members
from fer_jax.evaluation.mistakes import load_mistakes
from fer_jax.evaluation.predictions import load_predictions
from fer_jax.evaluation.saliency import make_saliency
from fer_jax.training.checkpoints import Checkpoints

DATA = {'evaluation__last': 2, 'evaluation__splits': ('validation', 'test'), 'optimizer__learning_rate': 1e-5}


@pytest.fixture
def run(make_run):
    """A run that has learned nothing yet, so that it makes mistakes."""
    return Path(make_run('run', **DATA))


def make(capsys, *words):
    assert report.main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def saliency_of(workdir, steps, images, classes):
    """The mean of the maps of each member alone."""
    read = run_json.read_run(str(workdir))
    model = experiment.make_model(read.config, 3)
    shapes = model.init(jax.random.key(0), jnp.zeros((1, 12, 12, 1)))
    maps = []
    for step in steps:
        variables = Checkpoints(str(workdir)).restore_model(step, shapes)
        maps.append(make_saliency(model, read.preprocessing)(stack_members([variables]), images, classes))
    return np.mean(maps, 0)


def test_maps_are_made_once_and_nothing_is_scored_anew(run, dataset, capsys, monkeypatch):
    scores = (run / 'scores.json').read_bytes()
    out = make(capsys, run, '--split=test')
    assert f'{run}/mistakes/test.npz' in out and f'page: {run}/report.html' in out
    kept = load_mistakes(run / 'mistakes' / 'test.npz')
    split = dataset.splits['test']
    rows = [split.ids.tolist().index(identity) for identity in kept.ids]
    np.testing.assert_array_equal(kept.images, split.images[rows])
    assert len(rows) and (kept.predicted != split.labels[rows]).all()
    assert kept.shown_members == len(kept.members) == 2
    for saw, classes in ((kept.saw_predicted, kept.predicted), (kept.saw_true, split.labels[rows])):
        np.testing.assert_allclose(saw, saliency_of(run, (4, 8), kept.images, classes), atol=1e-5)
    assert kept.saw_predicted.max() > 0.1
    page = (run / 'report.html').read_text()
    assert page.count('<img ') == 3 * len(rows) and 'most at the ' in page
    monkeypatch.setattr(experiment, 'load_data', None)  # would fail
    assert 'mistakes' not in make(capsys, run, '--split=test')
    assert (run / 'report.html').read_text() == page
    assert (run / 'scores.json').read_bytes() == scores


def test_a_run_may_have_moved_and_several_want_more(run, make_run, tmp_path, capsys):
    make(capsys, run)
    first = load_mistakes(run / 'mistakes' / 'validation.npz')
    moved = run.rename(tmp_path / 'moved')
    other = Path(make_run('other', seed=1, **DATA))
    make(capsys, f'--runs={moved},{other}', f'--output={tmp_path}/both.html')
    both = load_mistakes(moved / 'mistakes' / 'validation.npz')
    assert set(first.ids.tolist()) <= set(both.ids.tolist())
    page = (tmp_path / 'both.html').read_text()
    assert 'no picture' not in page and 'A moved' in page and 'Not subtracted' not in page


def test_where_data_or_checkpoints_are_gone_it_says_so(run, capsys, monkeypatch):
    shutil.rmtree(run / 'checkpoints' / '4')
    out = make(capsys, run)
    assert 'Faces, but no maps: ' in out and 'no longer has its checkpoint of step 4' in out
    page = (run / 'report.html').read_text()
    assert 'no longer has its checkpoint of step 4' in page and page.count('<img ') > 0 and 'most at' not in page
    shutil.rmtree(run / 'mistakes')

    def gone(_):
        raise UserError('rows holds no data; prepare it first')

    monkeypatch.setattr(experiment, 'load_prepared', gone)
    out = make(capsys, run)
    assert 'No faces and no maps: rows holds no data; prepare it first.' in out
    page = (run / 'report.html').read_text()
    assert 'rows holds no data' in page and 'Worst mistakes of run' in page and '<img ' not in page


def test_other_data_under_the_same_name_is_not_shown(run, make_dataset, capsys, monkeypatch):
    monkeypatch.setattr(experiment, 'load_prepared', lambda _: make_dataset(seed=5))
    assert 'now holds other images than run was read on' in make(capsys, run)


def test_an_evaluation_shows_the_maps_of_its_first_network(run, make_run, tmp_path, capsys):
    other = make_run('other', seed=1, **DATA)
    path = Path(other, 'config.json')
    path.write_text(
        path.read_text().replace('"dropout": -1.0', '"dropout": 0.5')
    )  # another network, of the same shapes
    output = tmp_path / 'together'
    evaluate.evaluate_runs([str(run), other], ['validation'], str(output), last=2)
    make(capsys, output)
    kept = load_mistakes(output / 'mistakes' / 'validation.npz')
    assert (len(kept.members), kept.shown_members) == (4, 2)
    assert kept.members.tolist() == [f'{run}@4', f'{run}@8', f'{other}@4', f'{other}@8']
    predictions = load_predictions(output / 'predictions' / 'validation.npz')
    assert set(kept.ids.tolist()) <= set(predictions.ids.tolist())
    page = (output / 'report.html').read_text()
    assert 'The maps are of the 2 members that have the first one’s network.' in page
    assert '>evaluation<' in page


def test_a_workdir_that_cannot_be_written_gets_a_page_elsewhere(run, tmp_path, capsys):
    (run / 'mistakes').write_text('in the way')
    out = make(capsys, run, f'--output={tmp_path}/page.html')
    assert f'No faces and no maps: {run}/mistakes/validation.npz cannot be written (' in out
    assert 'Worst mistakes of run' in (tmp_path / 'page.html').read_text()
