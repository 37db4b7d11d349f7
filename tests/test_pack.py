"""Packed models: what they say is what their runs said, at the temperature; what is damaged is refused."""

import json
import os

import numpy as np
import pytest
import skimage.data
from safetensors import safe_open
from safetensors.numpy import save_file

from fer_jax import Recognizer, evaluate, pack
from fer_jax.errors import UserError
from fer_jax.evaluation.predictions import load_predictions
from fer_jax.evaluation.scores import ensemble_probabilities, negative_log_likelihood


@pytest.fixture
def evaluation(make_run, tmp_path):
    """Four members of two networks, read on validation and test with mirror images."""
    runs = [make_run('a'), make_run('b', model__name='wider_cnn', data__crop=10, seed=1)]
    output = str(tmp_path / 'evaluation')
    evaluate.evaluate_runs(runs, ['validation', 'test'], output, last=2, tta='flip')
    return output


@pytest.fixture
def packed(evaluation, tmp_path, capsys):
    path = str(tmp_path / 'models' / 'four.safetensors')
    pack.main([f'--evaluation={evaluation}', f'--output={path}'])
    capsys.readouterr()
    return path


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
        assert after.member_names.tolist() == [f'four.safetensors:{name}' for name in ('a@4', 'a@8', 'b@4', 'b@8')]
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
    runs = [os.path.join(os.path.dirname(evaluation), name) for name in ('a', 'b')]
    (there,), (here,) = Recognizer(runs, last=2, tta='flip')(picture), Recognizer(packed)(picture)
    np.testing.assert_allclose(here.logits * temperature, there.logits, atol=1e-5)
    assert sum(here.probabilities.values()) == pytest.approx(1)


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
    with pytest.raises(UserError, match='notes.md cannot be read: No such file'):
        call(f'--output={tmp_path / "x.safetensors"}', f'--notes={tmp_path / "notes.md"}')
    again = str(tmp_path / 'again')
    evaluate.evaluate_runs([packed], ['validation'], again)
    with pytest.raises(UserError, match='is packed already; evaluate the runs'):
        pack.main([f'--evaluation={again}', f'--output={tmp_path / "y.safetensors"}'])
    evaluate.evaluate_runs([make_run('a')], ['test'], evaluation, last=1)
    with pytest.raises(UserError, match='holds splits of different members or views'):
        call(f'--output={tmp_path / "z.safetensors"}')
