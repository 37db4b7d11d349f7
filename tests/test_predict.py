"""The command: every kind of picture and a film, in real processes; what it refuses; how it goes on."""

import csv
import json
import os
import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from fer_jax import Recognizer, cli, predict
from fer_jax.apps.film import FilmWriter, open_film
from fer_jax.apps.records import SCHEMA, face_columns
from fer_jax.errors import UserError

pytest.importorskip('av', reason='the extra `video`')
ROOT = Path(__file__).resolve().parent.parent
CLASSES = ('anger', 'fear', 'happiness')


@pytest.fixture(scope='module')
def astronaut():
    return Image.fromarray(skimage.data.astronaut())


@pytest.fixture(scope='module')
def pictures(tmp_path_factory, astronaut):
    """One of every kind, by name the number of faces; -1 for what is to be rejected."""
    folder = tmp_path_factory.mktemp('pictures')
    (folder / 'deep').mkdir()
    small, face = astronaut.resize((256, 256)), astronaut.crop((120, 20, 320, 220))
    turned = Image.Exif()
    turned[0x0112] = 6
    alpha = small.convert('RGBA')
    alpha.putalpha(Image.linear_gradient('L').point(lambda value: 255 - value // 8))
    small.transpose(Image.Transpose.ROTATE_90).save(folder / 'exif.jpg', exif=turned, quality=95)
    alpha.save(folder / 'alpha.png')
    Image.fromarray(np.asarray(small.convert('L')).astype(np.uint16) * 257).save(folder / 'sixteen.png')
    small.convert('CMYK').save(folder / 'inks.jpg', quality=95)
    small.save(folder / 'animated.gif', save_all=True, append_images=[Image.new('RGB', small.size)])
    small.convert('L').save(folder / 'deep' / 'grey.bmp')
    Image.fromarray(skimage.data.coffee()).resize((300, 200)).save(folder / 'none.webp')
    tile = np.pad(np.asarray(face.resize((72, 72))), ((8, 8), (8, 8), (0, 0)))
    Image.fromarray(np.tile(tile, (5, 8, 1))).save(folder / 'forty.jpg', quality=95)
    twenty = Image.new('RGB', (400, 300), (90, 90, 90))
    twenty.paste(astronaut.resize((96, 96)), (200, 150))
    twenty.save(folder / 'twenty.png')
    astronaut.resize((7100, 7100), Image.Resampling.NEAREST).save(folder / 'large.jpg', quality=80)
    (folder / 'broken.jpg').write_bytes((folder / 'exif.jpg').read_bytes()[:3000])
    (folder / 'empty.png').write_bytes(b'')
    header = b'IHDR' + struct.pack('>IIBBBBB', 50_000, 50_000, 8, 0, 0, 0, 0)
    bomb = b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + header + struct.pack('>I', zlib.crc32(header))
    (folder / 'bomb.png').write_bytes(bomb + struct.pack('>I', 100) + b'IDAT' + bytes(104))
    (folder / 'svg.jpg').write_text('<svg/>')
    (folder / 'notes.txt').write_text('no picture')
    (folder / 'film.mp4').write_text('no film')
    ones = (
        'exif.jpg',
        'alpha.png',
        'sixteen.png',
        'inks.jpg',
        'animated.gif',
        'deep/grey.bmp',
        'twenty.png',
        'large.jpg',
    )
    rejected = dict.fromkeys(('broken.jpg', 'empty.png', 'bomb.png', 'svg.jpg', 'film.mp4'), -1)
    return folder, {**dict.fromkeys(ones, 1), 'none.webp': 0, 'forty.jpg': 40, **rejected}


@pytest.fixture(scope='module')
def film(tmp_path_factory, astronaut):
    """Two seconds: a face that moves to the right, and from the second second on another one, mirrored."""
    path = tmp_path_factory.mktemp('film') / 'two.mp4'
    face = np.asarray(astronaut.crop((100, 0, 340, 240)).resize((160, 160)))
    with FilmWriter(path, Fraction(10)) as writer:
        for index in range(20):
            frame = np.full((240, 480, 3), 60, np.uint8)
            frame[40:200, 10 + 5 * index : 170 + 5 * index] = face
            if index >= 10:
                frame[60:220, 320:480] = face[:, ::-1]
            writer.add(index / 10, frame)
    return path


def start(*words):
    command = [sys.executable, '-m', 'fer_jax.predict', *map(str, words)]
    # With the flags of the tests themselves, programs that these have compiled serve here too.
    environment = {**os.environ, 'FER_JAX_XLA_CPU_FLAGS': ''}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)


def lines(output):
    return [json.loads(line) for line in (output / 'faces.jsonl').read_text(encoding='utf-8').splitlines()]


def table(path):
    with path.open(encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def size_of(path):
    with Image.open(path) as picture:
        return picture.size


def check_face(face):
    shares = face['probabilities']
    assert tuple(shares) == CLASSES and sum(shares.values()) == pytest.approx(1, abs=1e-5)
    assert len(face['box']) == 4 and np.shape(face['points']) == (5, 2) and 0 < face['score'] <= 1
    assert face['emoji'] and isinstance(face['unsure'], bool)


def test_every_kind_of_picture_as_a_real_process(make_run, pictures, tmp_path):
    folder, expected = pictures
    output = tmp_path / 'out'
    done = start(folder, f'--run={make_run()}', f'--output={output}', '--saliency', '--threshold=0.4')
    assert done.returncode == predict.REJECTED, done.stderr
    assert f'Files: {len(expected)}, read 10, rejected 5' in done.stdout
    assert 'Skipped 1 that are neither picture nor film (notes.txt)' in done.stdout and 'Faces: 48' in done.stdout
    assert 'animated.gif' in done.stdout and '(the first of 2 frames)' in done.stdout
    assert 'Traceback' not in done.stderr and done.stderr.count('rejected:') == 5
    found = {line['source']: line for line in lines(output)}
    assert {name: len(line['faces']) if 'faces' in line else -1 for name, line in found.items()} == expected
    assert all(line['schema'] == SCHEMA for line in found.values())
    for line in found.values():
        for face in line.get('faces', ()):
            check_face(face)
            assert (output / face['saliency']).is_file()
            emotion = max(face['probabilities'], key=face['probabilities'].get)
            assert face['emotion'] == emotion and face['unsure'] == (face['probabilities'][emotion] < 0.4)
        assert line['kind'] == ('picture' if 'faces' in line else 'reject')
        assert 'drawn' not in line or max(size_of(output / line['drawn'])) >= 960
    nose = {name: np.array(found[name]['faces'][0]['points'][2]) for name in ('exif.jpg', 'alpha.png', 'large.jpg')}
    np.testing.assert_allclose(nose['exif.jpg'], [112, 63], atol=4)  # upright
    np.testing.assert_allclose(nose['alpha.png'], [112, 63], atol=4)
    np.testing.assert_allclose(nose['large.jpg'] / 7100 * 256, [112, 63], atol=4)
    assert found['large.jpg']['width'] == 7100 and found['animated.gif']['first_of_frames'] == 2
    assert found['deep/grey.bmp']['drawn'] == 'drawn/deep/grey.bmp.jpg'
    rows = table(output / 'faces.csv')
    assert len(rows) == 48 and list(rows[0]) == face_columns(CLASSES)
    assert sum(float(rows[0][f'probability_{name}']) for name in CLASSES) == pytest.approx(1, abs=1e-5)
    reasons = {row['source']: row['reason'] for row in table(output / 'rejects.csv')}
    assert reasons.keys() == {name for name, count in expected.items() if count < 0}
    assert 'pixels' in reasons['bomb.png'] and 'not a film' in reasons['film.mp4']


def test_a_film_is_followed_drawn_and_its_timeline_written(make_run, film, tmp_path):
    output = tmp_path / 'out'
    words = [str(film), f'--run={make_run()}', f'--output={output}', '--every=2', '--smoothing=0.3']
    words += ['--threshold=0', '--min-face=40']
    assert predict.main(words) == 0
    *looks, summary = lines(output)
    assert summary['kind'] == 'film' and summary['frames'] == 20 and summary['looks'] == len(looks) == 10
    assert summary['people'] == 2 and summary['seconds'] == pytest.approx(1.9) and not looks[0]['faces'][0]['unsure']
    assert [look['frame'] for look in looks] == list(range(0, 20, 2))
    assert [sorted(face['person'] for face in look['faces']) for look in looks] == [[1]] * 5 + [[1, 2]] * 5
    before = None
    for look in looks:
        face = next(face for face in look['faces'] if face['person'] == 1)
        check_face(face)
        now = np.array(list(face['probabilities'].values()))
        before = now if before is None else before + (1 - np.exp(-0.2 / 0.3)) * (now - before)
        np.testing.assert_allclose(list(face['smoothed'].values()), before, atol=1e-5)
    rows = table(output / summary['timeline'])
    assert [row['person'] for row in rows].count('2') == 5 and len(rows) == 15
    assert min(size_of(output / 'timelines' / 'two.mp4.png')) > 300
    with open_film(output / summary['drawn']) as drawn:
        shapes = {image.shape for _, _, image in drawn.frames()}
    assert drawn.count == 20 and shapes == {(480, 960, 3)}


def test_what_is_done_is_not_done_again_and_what_changed_is(make_run, astronaut, tmp_path, capsys):
    folder, output, run = tmp_path / 'in', tmp_path / 'out', make_run()
    folder.mkdir()
    for name in 'abc':
        astronaut.resize((128, 128)).save(folder / f'{name}.jpg')
    words = [str(folder), f'--run={run}', f'--output={output}']
    assert predict.main(words) == 0
    whole = {line['source']: line for line in lines(output)}
    table_before = (output / 'faces.csv').read_bytes()
    assert predict.main(words) == 0
    assert 'Going on: 3 of 3 are done already' in capsys.readouterr().out
    assert (output / 'faces.csv').read_bytes() == table_before
    # As a kill would leave it: the last line torn; a drawn picture gone; a picture changed since.
    text = (output / 'faces.jsonl').read_text(encoding='utf-8').splitlines()
    (output / 'faces.jsonl').write_text('\n'.join([*text[:2], text[2][:50]]), encoding='utf-8')
    (output / 'drawn' / 'a.jpg.jpg').unlink()
    assert predict.main(words) == 0
    assert 'Going on: 1 of 3 are done already' in capsys.readouterr().out
    assert {line['source']: line for line in lines(output)} == whole and len(lines(output)) == 3
    Image.new('RGB', (60, 60)).save(folder / 'b.jpg')
    (folder / 'd.jpg').write_bytes(b'no')
    assert predict.main(words) == predict.REJECTED == predict.main(words)  # a reject is tried again
    assert sorted((line['source'], line['kind']) for line in lines(output)) == [
        *((f'{name}.jpg', 'picture') for name in 'abc'),
        ('d.jpg', 'reject'),
    ]
    assert {line['source']: len(line.get('faces', 'x')) for line in lines(output)}['b.jpg'] == 0
    with pytest.raises(UserError, match='holds results with another threshold'):
        predict.main([*words, '--threshold=0.9'])
    assert predict.main([*words, '--threshold=0.9', '--no-draw', '--overwrite']) == predict.REJECTED
    assert not (output / 'drawn').exists() and all(face['unsure'] for face in lines(output)[0]['faces'])


def test_the_command_says_what_the_recognizer_says(make_run, astronaut, tmp_path):
    run, output = make_run(), tmp_path / 'out'
    astronaut.save(tmp_path / 'a.png')
    words = ['--tta=flip', '--last=2', '--portraits', f'--output={output}', '--no-draw']
    assert predict.main([str(tmp_path / '*.png'), f'--run={run}', *words]) == 0
    (line,) = lines(output)
    (face,) = Recognizer(run, tta='flip', last=2, portraits=True)(np.asarray(astronaut))
    for name, share in face.probabilities.items():
        assert line['faces'][0]['probabilities'][name] == pytest.approx(share, abs=1e-5)
    np.testing.assert_allclose(line['faces'][0]['box'], face.box, atol=0.01)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['https://example.org/a.jpg', '--run=x'], 'is an address; only files of this machine are read'),
        (['nothing.jpg', '--run=x'], 'nothing.jpg does not exist'),
        (['--run=x'], 'PATH'),
        (['setup.cfg', '--run=a,'], 'empty name between the commas'),
        (['setup.cfg', '--run=nowhere'], 'nowhere is no run'),
        (['setup.cfg', '--run=a', '--treshold=1'], 'did you mean --threshold?'),
        (['setup.cfg', '--run=a', '--threshold=2'], '--threshold=2.0 is no probability'),
        (['setup.cfg', '--run=a', '--every=0'], '--every=0'),
        (['setup.cfg', '--run=a', '--min-face=1'], '--min-face=1'),
        (['setup.cfg', '--run=a', '--smoothing=-1'], '--smoothing=-1'),
        (['setup.cfg', '--run=a', '--last=-1'], '--last=-1'),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(monkeypatch, tmp_path, words, message):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=message) as caught:
        predict.main([*words, f'--output={tmp_path / "out"}'])
    assert '\n' not in str(caught.value) and not (tmp_path / 'out').exists()


def test_an_address_is_refused_in_one_line_with_its_code(monkeypatch, tmp_path, capsys):
    words = ['http://example.org/a.jpg', '--run=x', f'--output={tmp_path / "out"}']
    monkeypatch.setattr(sys, 'argv', ['fer_jax/predict.py', *words])
    with pytest.raises(SystemExit) as caught:
        cli.run(predict.main)
    captured = capsys.readouterr()
    assert caught.value.code == 2 and captured.out == '' and captured.err.count('\n') == 1
    assert captured.err.startswith('fer_jax.predict: error: http://example.org/a.jpg is an address')


def test_an_output_that_holds_something_else_is_left_alone(make_run, astronaut, tmp_path):
    astronaut.resize((64, 64)).save(tmp_path / 'a.png')
    output = tmp_path / 'mine'
    output.mkdir()
    (output / 'letter.txt').write_text('dear')
    for more in ([], ['--overwrite']):
        with pytest.raises(UserError, match='holds something else'):
            predict.main([str(tmp_path / 'a.png'), f'--run={make_run()}', f'--output={output}', *more])
    assert os.listdir(output) == ['letter.txt']
