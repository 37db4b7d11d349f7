"""The loop in two processes, and in processes of other numbers of devices, with the toy of tests/toy.py."""

import os
import random
import shutil
import signal
import time

import numpy as np
import pytest

from fer_jax.training.checkpoints import Checkpoints
from tests.launches import (
    damage_file,
    fill,
    finish,
    launch_toy,
    log,
    parameters,
    said,
    small_disk,
    steps,
    stop_one_of_two,
    wait_for,
    words,
)
from tests.toy import digest_of

ENDED = r'ended as (\w+)'


def finish_all(processes):
    return [finish(process, 120) for process in processes]


def ends(workdir, num=2):
    """The digests of the last states, one per process."""
    return [said(ENDED, words(workdir, index))[-1] for index in range(num)]


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """An unbroken run of two processes of two devices each."""
    workdir = tmp_path_factory.mktemp('whole') / 'run'
    assert finish_all(launch_toy(workdir, num=2, devices=2)) == [0, 0]
    return workdir


def test_every_process_writes_its_part_and_process_0_alone_speaks_and_keeps_the_record(whole):
    assert steps(whole) == [10, 30, 35, 40]
    folder = whole / 'checkpoints' / '40' / 'optimizer'
    parts = [sum(path.stat().st_size for path in folder.glob(f'ocdbt.process_{index}/d/*')) for index in range(2)]
    assert min(parts) > 0
    assert [line['step'] for line in log(whole)] == [*range(4, 41, 4)][:2] + [10, 12, 16, 20, 24, 28, 30, 32, 36, 40]
    assert len(os.listdir(whole / 'events')) == 1
    assert '40/40' in words(whole, 0)
    said_by_1 = [line.split()[0] for line in words(whole, 1).splitlines() if line and 'Gloo' not in line]
    assert said_by_1 == ['goes', 'ended']  # what the toy says


def test_a_signal_to_one_of_two_stops_both_at_one_step_and_the_run_goes_on_to_the_same_end(whole, tmp_path):
    workdir = tmp_path / 'run'
    processes = launch_toy(workdir, num=2, devices=2, pause=0.02)
    step = stop_one_of_two(processes, workdir, random.Random(0))
    assert said(r'stopped at step (\d+)', words(workdir, 1)) == [str(step)]
    processes = launch_toy(workdir, num=2, devices=2, pause=0.02)
    wait_for(workdir, steps(workdir)[-1] + 1, processes[0])
    os.kill(processes[0].pid, signal.SIGINT)
    codes = finish_all(processes)
    if codes != [0, 0]:  # it may have come in the last second
        assert codes == [130, 130]
        assert said(r'stopped at step (\d+)', words(workdir, 0)) == said(r'stopped at step (\d+)', words(workdir, 1))
        assert finish_all(launch_toy(workdir, num=2, devices=2)) == [0, 0]
    assert ends(workdir) == ends(whole)
    assert log(workdir) == log(whole)


@pytest.mark.parametrize(('num', 'linger'), [(1, 0.0), (2, 0.0), (2, 2.5)])
def test_a_signal_during_the_last_step_stops_all_at_the_end(whole, tmp_path, num, linger):
    workdir = tmp_path / 'run'
    struck = launch_toy(workdir, num=num, devices=4 // num, strike=(39, signal.SIGTERM), linger=linger)
    assert finish_all(struck) == [143] * num
    assert [said(r'stopped at step (\d+)', words(workdir, index)) for index in range(num)] == [['40']] * num
    assert finish_all(launch_toy(workdir, num=num, devices=4 // num)) == [0] * num
    assert steps(workdir) == steps(whole)
    if num == 2:
        assert ends(workdir) == ends(whole)


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGSTOP])
def test_the_other_of_two_ends_when_one_is_killed_or_hangs_and_the_end_is_the_same(whole, tmp_path, number):
    workdir = tmp_path / 'run'
    processes = launch_toy(workdir, num=2, devices=2, pause=0.05, strike=(25, number))
    ended = {}
    while len(ended) < (2 if number == signal.SIGKILL else 1):
        ended |= {p.name: time.monotonic() for p in processes if not p.is_alive() and p.name not in ended}
        time.sleep(0.01)
    processes[1].kill()
    assert finish_all(processes) == [75, -signal.SIGKILL]
    assert 'a peer was lost at step 2' in words(workdir, 0)
    if number == signal.SIGKILL:
        assert ended[processes[0].name] - ended[processes[1].name] < 5
    assert finish_all(launch_toy(workdir, num=2, devices=2)) == [0, 0]
    assert ends(workdir) == ends(whole)
    assert log(workdir) == log(whole)


def test_a_damaged_checkpoint_is_named_once_and_both_use_the_one_before(whole, tmp_path):
    workdir = shutil.copytree(whole, tmp_path / 'run')
    damage_file(workdir / 'checkpoints' / '40', random.Random(1))
    assert finish_all(launch_toy(workdir, num=2, devices=2)) == [0, 0]
    assert [words(workdir, index).count('set aside') for index in range(2)] == [1, 0]
    assert (workdir / 'checkpoints' / '40.damaged').is_dir()
    assert ends(workdir) == ends(whole)
    assert log(workdir) == log(whole)


def test_processes_that_measure_different_numbers_stop_as_process_0_does(tmp_path):
    workdir = tmp_path / 'run'
    codes = finish_all(launch_toy(workdir, num=2, devices=1, evaluate_every=3, early_stopping=2))
    assert codes == [0, 0]
    assert steps(workdir)[-1] == 9
    np.testing.assert_array_equal(parameters(workdir, 9)["[1]['lowered']"], np.float32(1 / 3) * 3)


def test_what_two_processes_wrote_is_read_exactly_by_one_and_by_other_numbers_of_devices(whole, tmp_path):
    workdir = shutil.copytree(whole, tmp_path / 'run')
    for step, devices in ((40, 8), (41, 1), (42, 2)):
        written = digest_of(parameters(workdir, step).values())
        assert finish_all(launch_toy(workdir, devices=devices, total=step + 1)) == [0]
        assert said(r'goes on from (\w+)', words(workdir, 0))[-1] == written
        assert ends(workdir, 1) == [digest_of(parameters(workdir, step + 1).values())] != [written]


@pytest.mark.parametrize('num', [1, 2])
def test_a_disk_that_fills_during_a_save_ends_all_with_a_line_and_the_run_goes_on_when_it_is_freed(tmp_path, num):
    large = {'side': 2**14, 'devices': 2, 'total': 20, 'log_every': 10, 'every': 5, 'keep': 2}
    whole = tmp_path / 'whole'
    assert finish_all(launch_toy(whole, num=num, **large)) == [0] * num
    with small_disk(tmp_path / 'small', 16 * 1024) as disk:
        workdir = disk / 'run'
        processes = launch_toy(workdir, num=num, pause=0.1, **large)
        wait_for(workdir, 5, processes[0])
        filler = fill(disk, room=200_000)
        started = time.time()
        assert finish_all(processes) == [1] * num
        assert time.time() - started < 60
        lines = [line for index in range(num) for line in words(workdir, index).splitlines() if 'error' in line]
        assert lines
        assert [line for line in lines if 'no space left on the disk' not in line] == []
        kept = steps(workdir)
        assert kept
        assert sorted(os.listdir(workdir / 'checkpoints')) == sorted(str(step) for step in kept)
        for step in kept:
            Checkpoints(str(workdir))._verify(step)
        os.remove(filler)
        assert finish_all(launch_toy(workdir, num=num, **large)) == [0] * num
        assert ends(workdir, num) == ends(whole, num)
        assert log(workdir) == log(whole)
