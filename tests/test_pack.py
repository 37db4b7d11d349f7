"""Packed models: what they say is what their runs said, at the temperature; what is damaged is refused."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from fer_jax import Recognizer, cli, evaluate, pack, predict
from fer_jax.errors import UserError
from fer_jax.evaluation.predictions import load_predictions
from fer_jax.evaluation.scores import ensemble_probabilities, negative_log_likelihood
from fer_jax.explain import explain
from fer_jax.reports.page.workdirs import read_workdir


@pytest.fixture(scope='module')
def once(tmp_path_factory):
    """Where the first test that needs them leaves runs, evaluation and model, for the others to copy."""
    return tmp_path_factory.mktemp('once')


@pytest.fixture
def evaluation(make_run, once, tmp_path):
    """Four members of two networks, in workdirs of one name, read on validation and test with mirror images."""
    runs = {'one/a': make_run('one/a'), 'two/a': make_run('two/a', model__name='wider_cnn', data__crop=10, seed=1)}
    if not (once / 'evaluation').exists():
        places = [str(shutil.copytree(run, once / name)) for name, run in runs.items()]
        evaluate.evaluate_runs(places, ['validation', 'test'], str(once / 'evaluation'), last=2, tta='flip')
        pack.main([f'--evaluation={once / "evaluation"}', f'--output={once / "models" / "four.safetensors"}'])
    return str(shutil.copytree(once / 'evaluation', tmp_path / 'evaluation'))


@pytest.fixture
def packed(evaluation, once, tmp_path):
    return str(shutil.copytree(once / 'models', tmp_path / 'models') / 'four.safetensors')


def header(path):
    with safe_open(path, 'numpy') as file:
        return json.loads(file.metadata()['fer_jax'])


def test_evaluated_it_gives_its_members_logits_at_its_temperature(evaluation, packed, tmp_path):
    temperature = header(packed)['temperature']
    assert temperature != 1
    output = str(tmp_path / 'again')
    evaluate.evaluate_runs([packed], ['validation', 'test'], output, tta='flip')
    for split in ('validation', 'test'):
        before = load_predictions(os.path.join(evaluation, 'predictions', f'{split}.npz'))
        after = load_predictions(os.path.join(output, 'predictions', f'{split}.npz'))
        assert after.steps.tolist() == [4, 8, 4, 8]
        assert after.member_names.tolist() == [
            f'four.safetensors:{name}' for name in ('1_a@4', '1_a@8', '2_a@4', '2_a@8')
        ]
        np.testing.assert_allclose(after.logits * temperature, before.logits, atol=1e-5)
        scores = header(packed)['scores'][split]
        assert scores['nll'] == pytest.approx(
            negative_log_likelihood(ensemble_probabilities(after.logits), after.labels), abs=1e-5
        )
    validation = header(packed)['scores']['validation']
    assert validation['nll'] < validation['before_temperature']['nll']


def test_a_recognizer_reads_it_with_its_views_and_temperature(evaluation, packed, make_run):
    picture = skimage.data.astronaut()
    temperature = header(packed)['temperature']
    runs = [os.path.join(os.path.dirname(evaluation), name) for name in ('one/a', 'two/a')]
    (there,), (here,) = Recognizer(runs, last=2, tta='flip')(picture), Recognizer(packed)(picture)
    np.testing.assert_allclose(here.logits * temperature, there.logits, atol=1e-5)
    assert sum(here.probabilities.values()) == pytest.approx(1)


def test_the_page_of_its_evaluation_shows_what_its_runs_saw(evaluation, packed, tmp_path):
    again = str(tmp_path / 'again')
    evaluate.evaluate_runs([packed], ['validation'], again)
    of_runs, of_packed = (
        explain(read_workdir(Path(place), 'A', 'validation'), np.arange(5), {}) for place in (evaluation, again)
    )
    assert of_runs[1] == of_packed[1] == '' and of_packed[0].shown_members == 2
    assert of_packed[0].saw_predicted.max() > 0.1
    np.testing.assert_allclose(of_packed[0].saw_predicted, of_runs[0].saw_predicted, atol=1e-5)


def test_models_that_were_scored_with_other_views_are_not_mixed_silently(evaluation, packed, make_run, tmp_path):
    plain, output = str(tmp_path / 'plain.safetensors'), str(tmp_path / 'evaluated')
    evaluate.evaluate_runs([make_run('one/a')], ['validation'], output)
    pack.main([f'--evaluation={output}', f'--output={plain}'])
    assert Recognizer([make_run('one/a'), packed]).tta == Recognizer([packed, make_run('one/a')]).tta == 'flip'
    with pytest.raises(UserError, match='with none, .*with flip: they were scored with other test-time augmentations'):
        Recognizer([plain, packed])
    assert Recognizer([plain, packed], tta='none').tta == 'none'


def test_a_model_that_was_packed_anew_does_not_go_on_with_the_results_of_the_old(evaluation, packed, tmp_path):
    picture = str(tmp_path / 'black.png')
    Image.new('RGB', (60, 60)).save(picture)
    call = [picture, f'--run={packed}', f'--output={tmp_path / "predicted"}', '--no-draw']
    assert predict.main(call) == predict.main([*call, '--tta=flip']) == 0
    pack.main([f'--evaluation={evaluation}', f'--output={packed}', '--single', '--overwrite'])
    with pytest.raises(UserError, match='holds results with another runs'):
        predict.main(call)


def test_the_card_has_the_numbers(evaluation, packed):
    with open(packed.replace('.safetensors', '.md')) as file:
        card = file.read()
    with open(os.path.join(evaluation, 'scores.json')) as file:
        written = json.load(file)
    test = header(packed)['scores']['test']
    assert f'| test | 17 | {100 * test["accuracy"]:.2f} |' in card
    assert f'{written["test"]["ensemble"]["nll"]:.4f}, {written["test"]["ensemble"]["ece"]:.4f}' in card
    assert 'Test was read once.' in card
    assert "config.model.name = 'wider_cnn'" in card
    runs = [described['config.json'] for described in header(packed)['runs']]
    assert len({run['model_summary']['parameters'] for run in runs}) == 2
    for run in runs:  # each network's own
        assert f'{run["config"]["model"]["name"]}: {run["model_summary"]["parameters"]:,} parameters' in card
    assert '| input | 12 of 12 pixels a side, grey; 10 of 12 pixels a side, grey |' in card
    for name, of in test['per_class'].items():
        assert f'| {name} | {of["support"]} | {of["precision"]:.3f} | {of["recall"]:.3f} | {of["f1"]:.3f} |' in card


def test_single_packs_the_best_by_validation(evaluation, tmp_path):
    path = str(tmp_path / 'one.safetensors')
    (tmp_path / 'notes.md').write_text('## Limits\n\nRows, not faces.')
    pack.main([f'--evaluation={evaluation}', f'--output={path}', '--single', f'--notes={tmp_path / "notes.md"}'])
    with open(os.path.join(evaluation, 'scores.json')) as file:
        best = json.load(file)['validation']['single']
    found = header(path)
    assert found['runs'][0]['name'] == os.path.basename(best['run']) and found['members'] == [[0, best['step']]]
    assert found['scores']['test']['before_temperature']['accuracy'] == found['scores']['test']['accuracy']
    assert 'Rows, not faces.' in (tmp_path / 'one.md').read_text()


def test_any_flipped_byte_is_noticed(packed, tmp_path):
    with open(packed, 'rb') as file:
        content = bytearray(file.read())
    random = np.random.default_rng(0)
    for place in [*random.integers(0, len(content), 10), len(content) - 1]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(random.integers(8))
        path = tmp_path / 'damaged.safetensors'
        path.write_bytes(damaged)
        os.utime(path, ns=(0, int(place)))
        try:
            Recognizer(path)
        except UserError as error:
            assert 'damaged' in str(error)
        else:  # a digit of a score or a letter of a command: the header is no parameter
            assert place < len(content) // 4
    (tmp_path / 'short.safetensors').write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match='short.safetensors is damaged or no packed model'):
        Recognizer(tmp_path / 'short.safetensors')


def test_what_is_no_packed_model_is_refused(packed, tmp_path):
    save_file({'x': np.zeros(3, np.float32)}, tmp_path / 'other.safetensors')
    with pytest.raises(UserError, match='no packed model .*fer_jax.pack writes one'):
        Recognizer(tmp_path / 'other.safetensors')
    with pytest.raises(UserError, match='cannot be read: No such file'):
        Recognizer(tmp_path / 'none.safetensors')
    with pytest.raises(UserError, match='used as it was packed: all of its 4; leave --last out'):
        Recognizer(packed, last=2)


def test_wrong_calls_end_with_one_line(evaluation, packed, make_run, tmp_path):
    call = lambda *flags: pack.main([f'--evaluation={evaluation}', *flags])
    with pytest.raises(UserError, match='a name that ends in .safetensors is wanted'):
        call('--output=model.bin')
    with pytest.raises(UserError, match='is there; choose another --output, or give --overwrite'):
        call(f'--output={packed}')
    os.rename(packed, f'{packed}.safetensors')
    with pytest.raises(UserError, match='four.md is there; choose another --output, or give --overwrite'):
        call(f'--output={packed}')
    with pytest.raises(UserError, match='four.md is where the card goes'):
        call(f'--output={packed}', f'--notes={packed.replace(".safetensors", ".md")}', '--overwrite')
    os.rename(f'{packed}.safetensors', packed)
    with pytest.raises(OSError) as caught:
        call('--output=/proc/four.safetensors')
    assert cli.explain(caught.value)[0] == 1
    with pytest.raises(UserError, match='notes.md cannot be read: No such file'):
        call(f'--output={tmp_path / "x.safetensors"}', f'--notes={tmp_path / "notes.md"}')
    again = str(tmp_path / 'again')
    evaluate.evaluate_runs([packed], ['validation'], again)
    with pytest.raises(UserError, match='is packed already; evaluate the runs'):
        pack.main([f'--evaluation={again}', f'--output={tmp_path / "y.safetensors"}'])
    evaluate.evaluate_runs([make_run('a')], ['test'], evaluation, last=1)
    with pytest.raises(UserError, match='holds splits of different members or views'):
        call(f'--output={tmp_path / "z.safetensors"}')
