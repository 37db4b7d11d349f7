import os
import signal
import threading
import time

import pytest

from fer_jax.apps import watching
from fer_jax.apps.stopping import Stop
from fer_jax.apps.watching import watch


@pytest.fixture
def stop(monkeypatch):
    monkeypatch.setattr(watching, 'PAUSE', 0.1)
    with Stop(30) as stop:
        yield stop


def watched(folder, stop, done=()):
    """Lists of names, as they come."""
    found = watch([str(folder)], folder / 'out', stop, lambda source: source.name in done)
    return ([source.name for source in sources] for sources in found)


def test_what_is_there_and_what_comes_each_once(tmp_path, stop):
    for name in ('a.jpg', 'b.mp4', 'note.txt', 'done.png', '.hidden.jpg'):
        (tmp_path / name).write_bytes(b'x')
    found = watched(tmp_path, stop, done=('done.png',))
    assert next(found) == ['a.jpg', 'b.mp4']
    for name in ('out/drawn.jpg', 'deep/c.jpg'):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b'x')
    assert next(found) == ['deep/c.jpg']
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert list(found) == []


def test_a_file_is_given_when_its_writing_has_ended(tmp_path, stop, monkeypatch):
    monkeypatch.setattr(watching, 'PAUSE', 0.6)
    ended = threading.Event()

    def write():
        with (tmp_path / 'slow.jpg').open('wb', buffering=0) as file:
            for _ in range(20):
                file.write(b'x')
                time.sleep(0.05)
        ended.set()

    threading.Thread(target=write).start()
    (source,) = next(watch([str(tmp_path)], tmp_path / 'out', stop, lambda _: False))
    assert ended.is_set() and source.member.size == 20


def test_what_changes_comes_again(tmp_path, stop):
    path = tmp_path / 'a.jpg'
    path.write_bytes(b'x')
    found = watched(tmp_path, stop)
    assert next(found) == ['a.jpg']
    os.utime(path, ns=(1, 1))
    assert next(found) == ['a.jpg']


def test_a_folder_that_goes_and_comes_back_is_waited_for_and_holds_up_no_other(tmp_path, stop, capsys):
    there, gone = tmp_path / 'there', tmp_path / 'gone'
    there.mkdir()
    (there / 'a.jpg').write_bytes(b'x')
    found = watch([str(there), str(gone)], tmp_path / 'out', stop, lambda _: False)
    assert [source.name for source in next(found)] == ['there/a.jpg']  # as if both were there

    def bring():
        gone.mkdir()
        (gone / 'a.jpg').write_bytes(b'x')

    threading.Timer(0.5, bring).start()
    assert [source.name for source in next(found)] == ['gone/a.jpg']
    assert capsys.readouterr().err == f'{gone} is gone; it is waited for\n'
