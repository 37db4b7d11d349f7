"""The command on what has no end: a camera (a film stands in), a screen of a real X server, watched folders."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from fer_jax import predict
from fer_jax.apps.film import FilmWriter, open_film
from fer_jax.apps.records import SCHEMA
from fer_jax.errors import UserError
from tests import screens

pytest.importorskip('av', reason='the extra `video`')
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def astronaut():
    return Image.fromarray(skimage.data.astronaut())


@pytest.fixture
def film(tmp_path, astronaut):
    """A second of a face that moves right, and back when it begins anew."""
    path = tmp_path / 'camera.mp4'
    face = np.asarray(astronaut.crop((100, 0, 340, 240)).resize((160, 160)))
    with FilmWriter(path, Fraction(20)) as writer:
        for index in range(20):
            frame = np.full((200, 320, 3), 60, np.uint8)
            frame[20:180, 10 + 2 * index : 170 + 2 * index] = face
            writer.add(index / 20, frame)
    return path


def start(*words, **more):
    command = [sys.executable, '-m', 'fer_jax.predict', *map(str, words)]
    # With the flags of the tests themselves, programs that these have compiled serve here too.
    environment = {**os.environ, 'FER_JAX_XLA_CPU_FLAGS': '', **more}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(condition, process, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def lines(output):
    path = output / 'faces.jsonl'
    text = path.read_text(encoding='utf-8') if path.exists() else ''
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith('\n')]


def after(output, count, act):
    """Has `act` called when there are so many lines."""

    def wait():
        while len(lines(output)) < count:
            time.sleep(0.05)
        act()

    threading.Thread(target=wait, daemon=True).start()


def table(path):
    with path.open(encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def check_recording(found, output):
    """That lines are one recording in which one person is seen, and its timeline and drawn film fit."""
    *looks, film = found
    assert looks
    assert film['kind'] == 'film' and {look['kind'] for look in looks} == {'frame'}
    assert {line['source'] for line in found} == {film['source']} and {line['schema'] for line in found} == {SCHEMA}
    numbers, times = [look['frame'] for look in looks], [look['time'] for look in looks]
    assert numbers[0] == times[0] == 0 and numbers == sorted(set(numbers)) and times == sorted(set(times))
    assert film['frames'] == numbers[-1] + 1 and film['looks'] == len(looks) and film['seconds'] == times[-1]
    for look in looks:
        assert (look['clock'] - film['clock']) / 1e9 == pytest.approx(look['time'], abs=1e-3)
        (face,) = look['faces']
        assert face['person'] == 1 and sum(face['smoothed'].values()) == pytest.approx(1, abs=1e-4)
    assert film['people'] == 1
    rows = table(output / film['timeline'])
    assert [float(row['time']) for row in rows] == times
    assert (output / film['timeline']).with_suffix('.png').stat().st_size > 10_000
    with open_film(output / film['drawn']) as drawn:
        shown = [seconds for _, seconds, _ in drawn.frames()]
    np.testing.assert_allclose(shown, times, atol=1e-3)
    return looks, film


def test_a_camera_until_ctrl_c_and_again(make_run, film, tmp_path, capsys):
    run, output = make_run(), tmp_path / 'out'
    words = [f'webcam:{film}', f'--run={run}', f'--output={output}', '--no-window']
    process = start(*words)
    wait_for(lambda: len(lines(output)) > 4, process)
    assert all(line['kind'] == 'frame' for line in lines(output))  # each as it comes
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, ''), err
    assert 'looks/s of' in out and 'People: 1 (person 1 mostly' in out and 'Traceback' not in out
    first = lines(output)
    looks, summary = check_recording(first, output)
    assert summary['source'].startswith('webcam_') and (summary['width'], summary['height']) == (320, 200)
    # As a kill would leave it, without the end: the frames stay, and those of another call come after them.
    with (output / 'faces.jsonl').open('w', encoding='utf-8') as file:
        file.writelines(json.dumps(line) + '\n' for line in first[:-1])
    (output / 'drawn' / '.torn.mp4.partial').touch()
    began = time.time_ns()
    assert predict.main([*words, '--seconds=1']) == 0
    found = lines(output)
    assert found[: len(looks)] == looks
    _, second = check_recording(found[len(looks) :], output)
    assert second['source'] != summary['source'] and began < second['modified'] == second['clock'] < time.time_ns()
    assert second['seconds'] < 3
    assert len(table(output / 'faces.csv')) == len(looks) + second['looks']
    drawn = {summary['drawn'], second['drawn']}
    assert {f'drawn/{name}' for name in os.listdir(output / 'drawn')} == drawn


def test_a_camera_that_goes_away_leaves_what_it_gave(make_run, film, tmp_path, capsys):
    output = tmp_path / 'out'

    after(output, 3, film.unlink)
    assert predict.main([f'webcam:{film}', f'--run={make_run()}', f'--output={output}', '--no-window']) == 1
    captured = capsys.readouterr()
    assert captured.err.endswith('error: the camera ended: not a film: No such file or directory\n')
    check_recording(lines(output), output)


@pytest.mark.skipif(bool(screens.MISSING), reason=screens.MISSING)
def test_a_screen_is_read_and_its_own_window_is_not(make_run, astronaut, tmp_path):
    output, run = tmp_path / 'out', make_run()
    astronaut.save(tmp_path / 'face.png')
    words = ['screen', f'--run={run}', f'--output={output}', '--min-face=20']
    with screens.x_server() as display, screens.painted(display, tmp_path / 'face.png', '512x512+20+30'):
        process = start(*words, DISPLAY=display)
        wait_for(lambda: len(lines(output)) > 3, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0 and err == '', err
    looks, film = check_recording(lines(output), output)
    assert (film['width'], film['height']) == (800, 600) and film['source'].startswith('screen_')
    for look in looks:  # the window shows the face, too, in its corner
        np.testing.assert_allclose(look['faces'][0]['points'][2], [20 + 224, 30 + 126], atol=8)
    with open_film(output / film['drawn']) as drawn:
        *_, (_, _, last) = drawn.frames()
    assert (abs(last[-100:-40, -200:-100].astype(int) - 128) < 8).all()  # its place is grey


def test_folders_are_watched_until_sigterm(make_run, astronaut, tmp_path):
    folder, output = tmp_path / 'in', tmp_path / 'out'
    folder.mkdir()
    small = astronaut.resize((128, 128))
    for name in ('old.jpg', 'done.jpg'):
        small.save(folder / name)
    words = [f'--run={make_run()}', f'--output={output}', '--no-draw']
    assert predict.main([str(folder / 'done.jpg'), *words]) == 0
    process = start(folder, '--watch', *words)
    sources = lambda kind: [line['source'] for line in lines(output) if line['kind'] == kind]
    wait_for(lambda: sources('picture') == ['done.jpg', 'old.jpg'], process)
    (folder / 'slow.jpg').write_bytes(b'no')
    wait_for(lambda: sources('reject') == ['slow.jpg'], process)
    small.save(folder / 'slow.jpg')
    Image.new('RGB', (60, 60)).save(folder / 'old.jpg')  # over what was there
    wait_for(lambda: sources('picture') == ['done.jpg', 'old.jpg', 'slow.jpg'] and not sources('reject'), process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert 'Going on: 1 of 2 are done already' in out and 'Files: 3, read 2, rejected 0, 1 done before' in out
    assert 'slow.jpg: rejected: not a picture' in err and 'Traceback' not in err
    assert {line['source']: len(line['faces']) for line in lines(output)} == {
        'done.jpg': 1,
        'old.jpg': 0,
        'slow.jpg': 1,
    }
    assert sorted(row['source'] for row in table(output / 'faces.csv')) == ['done.jpg', 'slow.jpg']
    assert table(output / 'rejects.csv') == []


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['webcam', 'setup.cfg'], 'webcam is read by itself'),
        (['setup.cfg', 'screen:2'], 'screen:2 is read by itself, without other inputs'),
        (['webcam', '--every=2'], '--every is of films'),
        (['screen', '--saliency'], '--saliency is of files, not of screen'),
        (['webcam', '--watch'], '--watch is of files, not of webcam'),
        (['setup.cfg', '--watch'], '--watch wants folders that are there; setup.cfg is none'),
        (['nowhere', '--watch'], 'nowhere is none'),
        (['setup.cfg', '--no-window'], '--no-window is of webcam and screen'),
        (['setup.cfg', '--seconds=3'], '--seconds is of webcam, screen and --watch'),
        (['webcam', '--seconds=0'], '--seconds=0.0: more than 0 is wanted'),
        (['webcam', '--seconds=nan'], '--seconds=nan'),
        (['webcam', '--min-face=1'], '--min-face=1'),
    ],
)
def test_what_does_not_go_together_is_said(monkeypatch, tmp_path, words, message):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=message) as caught:
        predict.main([*words, '--run=x', f'--output={tmp_path / "out"}'])
    assert '\n' not in str(caught.value) and not (tmp_path / 'out').exists()
