"""Files that run without this project, against the JAX networks that they are of: every family; and the command."""

import json
import os
import re
from pathlib import Path

import jax
import numpy as np
import onnx
import onnxruntime
import pytest

from fer_jax import export, exported, onnx_detector, onnx_files
from fer_jax.errors import UserError
from fer_jax.evaluation.predictions import load_predictions
from fer_jax.evaluation.scores import ensemble_probabilities
from fer_jax.exported import Classifier
from fer_jax.faces import networks
from fer_jax.faces.weights import load_weights
from fer_jax.models.affectnet import AffectNetCNN, BaselineCNN
from fer_jax.models.cnn import WiderCNN
from fer_jax.models.resnet import ResNet18
from fer_jax.models.vgg import VGG19, VGGPairs

FAMILIES = {
    'cnn': (WiderCNN(3, (4, 6), hidden=8), 12),
    'resnet': (ResNet18(3, blocks=(1, 1), dtype='bfloat16'), 9),
    'vgg19': (VGG19(3, stages=((4, 4), (6,))), 9),
    'vgg_pairs': (VGGPairs(3, stages=((4,), (6,)), hidden=(8, 8)), 8),
    'affectnet': (AffectNetCNN(3), 48),
    'baseline': (BaselineCNN(3), 17),
}


def made_up(model, side):
    """A network with variables of which none is zero or one, as a classifier of pixels."""
    model = exported.plain(model)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, side, side, 3), np.float32))
    random = np.random.default_rng(0)

    def draw(path, array):
        wide = np.sqrt(2 / np.prod(array.shape[:-1])) if array.ndim > 1 else 0.3
        around = {'var': 1, 'scale': 1}.get(path[-1].key, 0)
        return (around + random.uniform(-wide, wide, array.shape) * (3**0.5 if array.ndim > 1 else 1)).astype(
            np.float32
        )

    variables = jax.tree_util.tree_map_with_path(draw, shapes)

    def read(pixels):
        logits = model.apply(variables, pixels.astype(np.float32) / 64 - 1)[0]
        return jax.nn.softmax(logits), logits[:, None]

    return Classifier((side, side, 3), read, {'members': [{}]})


@pytest.mark.parametrize('family', FAMILIES)
def test_every_family_gives_the_same_numbers_in_any_batch(family, tmp_path):
    classifier = made_up(*FAMILIES[family])
    assert export.write(classifier, 'onnx', tmp_path / 'onnx') < 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / 'onnx'))
    pixels = np.random.default_rng(3).integers(0, 256, (33, *classifier.shape)).astype(np.uint8)
    expected = jax.jit(classifier.read)(pixels)
    assert np.ptp(expected[1], 0).max() > 0.02  # the network does tell pictures apart
    for size in (1, 2, 7, 33):
        for ours, theirs in zip(expected, session.run(None, {'pixels': pixels[:size]}), strict=True):
            np.testing.assert_allclose(theirs, ours[:size], rtol=1e-4, atol=1e-4)
    content, _ = export._stablehlo(classifier)
    again = jax.export.deserialize(bytearray(content))
    assert set(again.platforms) == {'cpu', 'cuda', 'tpu'} and again.in_avals[0].shape[1:] == classifier.shape
    for ours, theirs in zip(expected, again.call(pixels), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-4)


RUN = {'evaluation__tta': 'flip', 'data__normalize': 'image', 'data__crop': 10}


def change(workdir, part, **fields):
    """Of a run's description."""
    path = Path(workdir) / 'config.json'
    described = json.loads(path.read_text())
    described[part] |= fields
    path.write_text(json.dumps(described))


def test_an_ensemble_gives_what_evaluate_gave_and_says_what_it_is(make_run, make_dataset, tmp_path, capsys):
    """Two runs, one of which is as the other but for its normalisation; with mirror images."""
    runs = [make_run('one', **RUN), make_run('two', **RUN)]
    change(runs[1], 'preprocessing', normalize='dataset')
    words = [f'--run={",".join(runs)}', '--last=1', '--tta=flip']
    for form in ('onnx', 'stablehlo'):
        assert export.main([*words, f'--format={form}', f'--output={tmp_path / "files"}{os.sep}']) == 0
    path, other = (tmp_path / 'files' / f'one.{form}' for form in ('onnx', 'stablehlo'))
    said = capsys.readouterr().out
    assert 'one.onnx: 2 members' in said and len(re.findall(r'JAX networks by \d\.\de-\d\d at most', said)) == 2
    expected = load_predictions(Path(runs[0]) / 'predictions' / 'validation.npz').logits
    session = onnxruntime.InferenceSession(str(path))
    pixels = make_dataset().splits['validation'].images
    probabilities, logits = session.run(None, {session.get_inputs()[0].name: pixels})
    np.testing.assert_allclose(logits[:, :1], expected.swapaxes(0, 1), atol=1e-4)
    assert abs(logits[:, 1] - logits[:, 0]).max() > 0.01
    np.testing.assert_allclose(probabilities, ensemble_probabilities(logits.swapaxes(0, 1)), atol=1e-6)
    model = onnx.load(path)
    assert not model.graph.value_info  # which onnxruntime-web would refuse
    (entry,) = model.metadata_props
    about = json.loads(entry.value)
    assert about == json.loads(Path(f'{other}.json').read_text(encoding='utf-8')) and entry.key == 'fer_jax'
    assert (about['schema'], about['class_names']) == (1, ['anger', 'fear', 'happiness'])
    assert about['emoji'] == ['😠', '😨', '😀'] and about['input']['shape'] == ['N', 12, 12, 1]
    assert about['outside']['frame']['share'] == 1.1 and about['outside']['colours'].startswith('grey by ITU-R BT.601')
    assert about['inside']['tta'] == 'flip'
    members = [(member['run'], member['step'], member['window']) for member in about['members']]
    assert members == [('one', 8, [1, 1, 10, 10]), ('two', 8, [1, 1, 10, 10])]
    config = json.loads((Path(runs[1]) / 'config.json').read_text())
    last = about['members'][-1]
    assert last['data'] == config['manifest_hash'] and last['mean'] == config['preprocessing']['mean']


def test_what_is_wrong_is_said_in_a_line(make_run, tmp_path):
    run, other = make_run('run', **RUN), make_run('other', **RUN)
    change(other, 'manifest', align={'detector': 'mtcnn', 'size': 30})
    (tmp_path / 'there').write_text('')
    for words, message in (
        ((f'--run={run}', f'--output={tmp_path / "there"}'), 'is there; choose another --output or give --overwrite'),
        ((f'--run={run},', '--output=x'), 'empty name between the commas'),
        (('--run=nowhere', '--output=x'), 'nowhere is no run'),
        ((f'--run={run}', '--last=-1', f'--output={tmp_path / "x"}'), '--last=-1'),
        ((f'--run={run},{other}', f'--output={tmp_path / "x"}'), 'other sizes, channels or alignment'),
        ((f'--run={run}', '--format=tf', '--output=x'), "invalid choice: 'tf'"),
    ):
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            export.main(words)
        assert '\n' not in str(caught.value)
    assert not (tmp_path / 'x').exists()


def test_without_the_extra_it_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_files.importlib.util, 'find_spec', lambda name: None if name == 'jax2onnx' else name)
    with pytest.raises(UserError, match=r"ONNX needs jax2onnx; install it with: pip install 'fer_jax\[export\]'"):
        export.main(['--run=a', f'--output={tmp_path / "file"}'])


def test_a_file_that_differs_is_not_written(monkeypatch, tmp_path):
    classifier = Classifier((4, 4, 1), lambda pixels: [pixels[:, 0, :, 0] / 255], {})
    wrong = lambda path: lambda pixels: [np.asarray(pixels[:, 0, :, 0] / 255 + 2e-4)]
    monkeypatch.setitem(export._FORMATS, 'stablehlo', lambda _: (b'content', wrong))
    with pytest.raises(UserError, match='differs from the JAX networks by 2.0e-04; it was not written'):
        export.write(classifier, 'stablehlo', tmp_path / 'file')
    assert not list(tmp_path.iterdir())


def test_the_detector_written_as_onnx_finds_what_the_jax_networks_find():
    weights = load_weights()
    models = onnx_detector.write_detector(weights)
    for name, sides in (('pnet', (34, 60)), ('rnet', (24, 24)), ('onet', (48, 48))):
        pixels = np.random.default_rng(0).integers(0, 256, (3, *sides, 3)).astype(np.uint8)
        ours = jax.jit(networks.NETWORKS[name])(weights[name], pixels)
        for expected, found in zip(ours, onnx_files.open_onnx(models[name])(pixels), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5)
