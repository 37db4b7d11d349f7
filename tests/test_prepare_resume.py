"""A command that was killed, interrupted or out of disk goes on when it is given again, to the same bytes."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fer_jax.data.stored import load_prepared
from fer_jax.prepare import main
from tests import layouts

ENVIRONMENT = os.environ | {'PYTHONPATH': str(Path(__file__).resolve().parents[1])}


def command(*arguments):
    return [sys.executable, '-m', 'fer_jax.prepare', *map(str, arguments)]


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
    """A table of eight shards, and what preparing it in one go gives."""
    folder = tmp_path_factory.mktemp('unbroken')
    table = layouts.fer2013_noise(folder / 'fer2013.csv', 2000)
    assert main(['--dataset=fer2013', f'--source={table}', f'--output={folder / "out"}', '--workers=1']) == 0
    return table, folder / 'out'


def assert_same_files(folder, expected):
    assert sorted(os.listdir(folder)) == sorted(os.listdir(expected))
    for name in os.listdir(expected):
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name


@pytest.mark.parametrize('how', ('killed with an older one there', 'interrupted'))
def test_a_stopped_run_leaves_what_was_there_and_goes_on(how, unbroken, tmp_path, capsys):
    table, expected = unbroken
    output, older = tmp_path / 'data' / 'out', 'older' in how
    flags = ['--dataset=fer2013', f'--output={output}', *(['--overwrite'] if older else [])]
    if older:
        assert main([*flags, f'--source={layouts.fer2013_noise(tmp_path / "old.csv", 10)}']) == 0
    flags += [f'--source={table}', '--workers=2']
    process = subprocess.Popen(
        command(*flags),
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob('data/.out.incomplete/pictures-*/*.npz'))) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:  # Ctrl-C reaches the whole group
        os.killpg(process.pid, signal.SIGINT) if how == 'interrupted' else process.kill()
        error = process.communicate()[1].decode()
    assert process.returncode == (130 if how == 'interrupted' else -signal.SIGKILL)
    assert 'Traceback' not in error
    if how == 'interrupted':
        assert error.split('\r')[-1].strip() == 'fer_jax.prepare: interrupted; the same command goes on from here'
    if older:
        assert load_prepared(output).manifest['source']['name'] == 'old.csv'
    else:
        assert not output.exists()
    while group_is_alive(process.pid):
        assert time.monotonic() < deadline, 'worker processes outlive the run'
        time.sleep(0.05)
    capsys.readouterr()
    assert main(flags) == 0
    going_on = re.search(r'Going on: ([\d,]+) of 2,000 pictures are done already', capsys.readouterr().out)
    assert int(going_on[1].replace(',', '')) >= 512
    assert_same_files(output, expected)
    assert os.listdir(tmp_path / 'data') == ['out']


def group_is_alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_full_disk_is_one_line_and_with_more_room_the_same_command_goes_on(unbroken, tmp_path):
    table, expected = unbroken
    disk = tmp_path / 'disk'
    disk.mkdir()
    mount = ['unshare', '-rm', 'sh', '-c', f'mount -t tmpfs -o size=1500k tmpfs "{disk}" && exec "$@"', 'sh']
    if not shutil.which('unshare') or subprocess.run([*mount, 'true'], capture_output=True).returncode:
        pytest.skip('no small file system can be mounted here')
    run = ' '.join(command('--dataset=fer2013', '--source=$1', '--output=$2/out', '--workers=1'))
    script = f'{run}; echo $?; ls "$2"; mount -o remount,size=50m "$2"; {run}; echo $?; cp -r "$2/out" "$3"'
    done = subprocess.run(
        [*mount, 'sh', '-c', script, 'sh', str(table), str(disk), str(tmp_path)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    said = done.stdout.splitlines()
    assert said[1] == '1' and said[-1] == '0'
    assert said[2] == said[0]  # `ls` shows nothing
    assert re.fullmatch(r'Going on: (256|512) of 2,000 pictures are done already', said[3])
    assert 'fer_jax.prepare: error: no space left on the disk' in done.stderr
    assert 'Traceback' not in done.stderr
    assert_same_files(tmp_path / 'out', expected)
