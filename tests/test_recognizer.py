"""The Python API: what it says of a face is what `evaluate` says of the same face, whatever picture it stands in."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import skimage.data
from PIL import Image

from fer_jax import Recognizer
from fer_jax.data.pixels import decode_picture
from fer_jax.data.records import ReaderOptions
from fer_jax.data.stored import load_prepared
from fer_jax.errors import UserError
from fer_jax.evaluation.predictions import load_predictions
from fer_jax.prepare import Alignment, prepare

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def astronaut():
    return skimage.data.astronaut()


@pytest.fixture
def recognizer(make_run):
    return Recognizer(make_run())


@pytest.fixture(scope='module')
def prepared(tmp_path_factory, astronaut):
    """(pictures, prepared): 30 pictures of one face, turned, shifted and lit otherwise, aligned to 24 pixels."""
    folder = tmp_path_factory.mktemp('pictures')
    random = np.random.default_rng(0)
    for index in range(30):
        place = folder / ('anger', 'fear', 'happiness')[index % 3] / f'{index}.png'
        place.parent.mkdir(exist_ok=True)
        picture = Image.fromarray(astronaut[20:240, 110:330]).rotate(random.uniform(-25, 25))
        left, top = random.integers(0, 30, 2)
        picture = picture.crop((left, top, left + 180, top + 180)).resize((90, 90))
        picture.point((np.arange(256) * random.uniform(0.6, 1)).astype(int).tolist() * 3).save(place)
    output = tmp_path_factory.mktemp('prepared') / 'faces'
    prepare('folder', folder, output, options=ReaderOptions(0, (0.6, 0.2, 0.2), 0, None), alignment=Alignment(size=24))
    return folder, output


ALIGNED = {'data__channels': 1, 'data__size': 20, 'data__crop': 16, 'evaluation__last': 2}


def test_an_aligned_face_has_the_logits_that_evaluate_gave_it(prepared, make_run):
    """Coloured pictures, aligned in colour, made grey and smaller, of which the networks see the middle."""
    folder, output = prepared
    workdir = make_run('aligned', data=load_prepared(output), **ALIGNED)
    said = load_predictions(os.path.join(workdir, 'predictions', 'validation.npz'))
    recognizer = Recognizer([workdir], portraits=True, last=2)
    assert recognizer.members == tuple(said.member_names)
    found = recognizer([decode_picture((folder / identity).read_bytes()) for identity in said.ids])
    assert sum(map(len, found)) > len(said.ids) // 2 and np.ptp(said.logits) > 1e-2
    for index, faces in enumerate(found):
        for face in faces:
            np.testing.assert_allclose(face.logits, said.logits[:, index], atol=1e-4)
            assert face.seen.shape == (16, 16, 1)


def test_what_a_face_says(recognizer, astronaut):
    (face,) = recognizer(astronaut)
    assert list(face.probabilities) == ['anger', 'fear', 'happiness'] == list(recognizer.class_names)
    assert sum(face.probabilities.values()) == pytest.approx(1, abs=1e-9)
    assert face.emotion == max(face.probabilities, key=face.probabilities.get)
    assert face.confidence == max(face.probabilities.values())
    assert face.emoji == {'anger': '😠', 'fear': '😨', 'happiness': '😀'}[face.emotion]
    assert face.box.shape == (4,) and face.points.shape == (5, 2) and face.score > 0.99 and face.saliency is None
    assert 180 < face.points[2, 0] < 260 and 100 < face.points[2, 1] < 150


def test_a_large_portrait_is_made_smaller_as_prepare_does_and_said_in_its_own_pixels(make_run, astronaut):
    large = np.asarray(Image.fromarray(astronaut).resize((2400, 2400), Image.Resampling.NEAREST))
    recognizer = Recognizer(make_run(), portraits=True)
    ((face,), (grey,)), (small,) = recognizer([large, large[..., 0]]), recognizer(astronaut)
    np.testing.assert_allclose(face.points * 512 / 2400, small.points, atol=3)
    np.testing.assert_allclose(grey.box * 512 / 2400, small.box, atol=8)


def test_the_threshold_makes_unsure(make_run, astronaut):
    workdir = make_run()
    assert not Recognizer(workdir, threshold=0)(astronaut)[0].unsure
    assert Recognizer(workdir, threshold=1)(astronaut)[0].unsure


def test_pictures_of_any_shape_alone_and_together(recognizer, make_run, astronaut):
    grey = np.ascontiguousarray(astronaut[:256, 100:400, 1])
    pictures = [astronaut, grey, grey[..., None], np.zeros((30, 40), np.uint8)]
    together = recognizer(pictures)
    assert [len(faces) for faces in together] == [1, 1, 1, 0]
    for picture, faces in zip(pictures, together, strict=True):
        for face, alone in zip(faces, recognizer(picture), strict=True):
            np.testing.assert_allclose(face.logits, alone.logits, atol=1e-3)
    stacked = recognizer(np.stack([astronaut, astronaut[:, ::-1]]))
    assert [len(faces) for faces in stacked] == [1, 1]
    assert recognizer([]) == []
    pair = np.concatenate([astronaut, astronaut[:, ::-1]], 1)
    surest = Recognizer(make_run(), most_faces=1)(pair)
    assert len(recognizer(pair)) == 2 and [face.score for face in surest] == [recognizer(pair)[0].score]
    with pytest.raises(ValueError, match='uint8'):
        recognizer(astronaut / 255)
    with pytest.raises(ValueError, match='uint8'):
        recognizer(np.zeros((20, 20, 4), np.uint8))


def test_members_of_several_runs_networks_and_framings_are_averaged(prepared, make_run, astronaut):
    runs = [
        make_run('one'),
        make_run('two', data=load_prepared(prepared[1]), **ALIGNED),
        make_run('three', model__name='wider_cnn', data__crop=10),
    ]
    alone = [Recognizer(run, last=2, tta='flip')(astronaut)[0] for run in runs]
    together = Recognizer(runs, last=2, tta='flip')
    (face,) = together(astronaut)
    assert together.members == ('one@4', 'one@8', 'two@4', 'two@8', 'three@4', 'three@8')
    np.testing.assert_allclose(face.logits, np.concatenate([each.logits for each in alone]), atol=1e-5)
    for name, share in face.probabilities.items():
        assert share == pytest.approx(np.mean([each.probabilities[name] for each in alone]), abs=1e-6)


def test_flip_averaging_does_not_see_which_way_a_face_looks(make_run, astronaut):
    """Of the mirrored face the same square is cut, mirrored; up to what detection differs by."""
    workdir = make_run()
    recognizer, once = Recognizer(workdir, tta='flip'), Recognizer(workdir)
    (face,), (plain,) = recognizer(astronaut), once(astronaut)
    mirrored = recognizer._networks[0].logits(np.ascontiguousarray(face.seen[None, :, ::-1]))
    np.testing.assert_allclose(mirrored[:, 0], face.logits, atol=1e-5)
    assert np.abs(face.logits - plain.logits).max() > 1e-4


def test_new_picture_sizes_and_numbers_of_faces_compile_nothing(make_run, astronaut):
    recognizer = Recognizer(make_run(), tta='flip', saliency=True)
    recognizer.warm_up()
    recognizer(astronaut)
    compiled, counting = [], True

    def count(event, *_, **__):
        if counting and 'compile' in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(count)
    tile = np.asarray(Image.fromarray(astronaut[20:220, 120:320]).resize((72, 72)))
    sizes = ((1, 1), (2, 5), (3, 3), (1, 2), (5, 8))
    found = [len(recognizer(np.tile(np.pad(tile, ((8, 8), (8, 8), (0, 0))), (*size, 1)))) for size in sizes]
    assert found == [1, 10, 9, 2, 40] and compiled == []
    jax.jit(lambda x: x * 3 + 1)(np.ones(7))
    counting = False
    assert compiled, 'nothing was counted even for a new program: the test showed nothing'


def test_saliency_is_where_the_class_was_seen(make_run, astronaut):
    recognizer = Recognizer(make_run(), saliency=True)
    (face,) = recognizer(astronaut)
    assert face.saliency.shape == face.seen.shape[:2] == (12, 12)
    assert face.saliency.min() >= 0 and face.saliency.max() <= 1 + 1e-6


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'runs': '/nowhere'}, '/nowhere is no run'),
        ({'threshold': 1.5}, '0 to 1'),
        ({'last': 4}, 'keeps its last 3 members, 4 are asked for'),
        ({'last': -1}, 'last=-1'),
        ({'min_face': 3}, '12 pixels'),
        ({'landmarks': 'x.dat'}, 'landmarks file is for the detector dlib'),
        ({'tta': 'flop'}, "'flop'"),
    ],
)
def test_what_is_wrong_is_said(make_run, options, message):
    with pytest.raises(UserError, match=message):
        Recognizer(**{'runs': make_run(), **options})


def test_runs_that_do_not_fit_together_are_refused(make_run):
    one = make_run('one')
    with pytest.raises(UserError, match='named twice'):
        Recognizer([one, one])
    with pytest.raises(UserError, match='differ in class names'):
        Recognizer([one, make_run('fewer', data__drop=('fear',))])


def test_importing_fer_jax_is_light_and_its_names_are_there():
    code = (
        'import sys, fer_jax; print(sorted({"jax", "numpy", "PIL"} & set(sys.modules)), fer_jax.__version__); '
        'from fer_jax import Recognizer, RecognizedFace; print(Recognizer.__name__, RecognizedFace.__name__); '
        'print(hasattr(fer_jax, "nothing"))'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.split('\n')[:3] == ['[] 0.1.0', 'Recognizer RecognizedFace', 'False'], done.stderr


def test_runs_whose_faces_dlib_aligned_need_its_predictor_and_do_not_mix(make_run):
    runs = {name: make_run(name) for name in ('dlib', 'mtcnn')}
    for name, workdir in runs.items():
        path = Path(workdir, 'config.json')
        described = json.loads(path.read_text())
        described['manifest']['align'] = {'detector': name, 'size': 24, 'missing': 'keep', 'landmarks': None}
        path.write_text(json.dumps(described))
    with pytest.raises(UserError, match='needs dlib.s predictor, by which its faces were aligned: landmarks=PATH'):
        Recognizer(runs['dlib'])
    with pytest.raises(UserError, match='aligned with dlib, those of .* with mtcnn'):
        Recognizer(list(runs.values()))
