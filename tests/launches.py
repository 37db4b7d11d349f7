"""Runs in processes of their own, for tests that kill them, stop them and fill their disks."""

import contextlib
import functools
import importlib.metadata
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Flags of XLA's. Nearly all that a test computes is compiled for it alone: machine code that is not optimised takes
# half as long to make, and half of that by the older of XLA's two ways of writing it, which jaxlib 0.11 has no more.
# What XLA itself makes of a program stays, and commands run as users run them.
_WRITTEN = ' --xla_cpu_use_fusion_emitters=false' * importlib.metadata.version('jaxlib').startswith('0.10.')
QUICKLY = '--xla_backend_optimization_level=0' + _WRITTEN
# For a hundred steps of a classifier: a step of the wider network takes 1.8 s of a processor without any optimisation.
A_LITTLE = '--xla_backend_optimization_level=1' + _WRITTEN

# Dropout, augmentation, the average and the plateau all have state or randomness that must survive a kill.
MODEL = {
    'model__name': 'wider_cnn',
    'data__size': 16,
    'augment__brightness': 0.2,
    'train__ema': 0.9,
    'train__steps': 120,
    'evaluation__every_steps': 12,
    'checkpoint__every_steps': 5,
    'log_every_steps': 4,
    'optimizer__learning_rate': 3e-3,
    'schedule__name': 'plateau',
    'schedule__plateau_patience': 1,
}
# A pair of translators in twelve steps: pools of past images and the average are state besides the networks. Optimiser
# and schedule are the paper's; a higher rate carries rounding away sooner.
PAIR = {
    'task': 'cyclegan',
    'pair': ('anger', 'happiness'),
    'train__steps': 12,
    'train__batch_size': 8,
    'train__ema': 0.9,
    'optimizer__name': 'adam',
    'optimizer__learning_rate': 2e-4,
    'optimizer__b1': 0.5,
    'schedule__name': 'linear',
    'log_every_steps': 1,
    'evaluation__every_steps': 6,
    'checkpoint__every_steps': 3,
    'cyclegan__blocks': 1,
    'cyclegan__width': 4,
    'cyclegan__discriminator_width': 4,
    'cyclegan__discriminator_layers': 2,
    'cyclegan__pool': 10,
    'cyclegan__samples': 2,
    'augment__flip': True,
}


@functools.cache
def _context():
    """Forks from one process that has imported everything, since importing takes longer than such a run."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['fer_jax.train', 'tests.conftest', 'tests.launches'])
    return context


def launch(workdir, changes=MODEL, pause=0.0, devices=1):
    """Starts what a launch does, on rows instead of faces; its words go to WORKDIR.err."""
    return _start(_train, str(workdir), changes, pause, devices, '', {})


def launch_two(workdir, changes=MODEL, pause=0.0, devices=1, apart=()):
    """The same in two processes of so many devices each; the words of process I go to WORKDIR.err.I.

    `apart` is what the second is given besides; `rows` there is the seed of its data.
    """
    member = {'FER_JAX_COORDINATOR': f'localhost:{free_port()}', 'FER_JAX_NUM': '2'}
    return [
        _start(_train, str(workdir), given, pause, devices, f'.{index}', member | {'FER_JAX_ID': str(index)})
        for index, given in enumerate((changes, changes | dict(apart)))
    ]


def launch_toy(workdir, num=1, devices=1, **changes):
    """Starts `num` processes of `devices` devices each that train the toy; process I's words go to WORKDIR.err.I."""
    port = free_port()
    return [_start(_train_toy, str(workdir), index, num, port, devices, changes) for index in range(num)]


def launch_source(place, source, **variables):
    """Starts a process that runs `source` with these variables; its words go to PLACE.out and PLACE.err."""
    return _start(_run_source, str(place), source, variables)


def _start(target, *arguments):
    process = _context().Process(target=_entry, args=(target.__name__, ROOT, arguments))
    process.start()
    return process


def _entry(name, root, arguments):
    sys.path.insert(0, root)
    globals()[name](*arguments)


def free_port():
    with socket.socket() as listener:
        listener.bind(('localhost', 0))
        return listener.getsockname()[1]


def _write_to(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    file = open(path, 'a')  # noqa: SIM115 (the process's own, to its end)
    os.dup2(file.fileno(), 2)
    os.dup2(file.fileno(), 1)
    sys.stderr = sys.stdout = file
    sys.argv = ['fer_jax/train.py']


def _train(workdir, changes, pause, devices, suffix, member):
    os.environ.update(member)
    from fer_jax import cli, evaluate, experiment, train
    from tests import conftest

    # Without a count where there is one device, as on a user's machine.
    simulated = f' --xla_force_host_platform_device_count={devices}' if devices > 1 else ''
    os.environ['XLA_FLAGS'] = (QUICKLY if changes.get('task') == 'cyclegan' else A_LITTLE) + simulated
    changes = dict(changes)
    rows = conftest.make_dataset((120, 32, 8), seed=changes.pop('rows', 0))
    experiment.load_prepared = lambda _: rows
    evaluate.write_report = lambda *_, **__: None
    train.load_config = lambda *_: conftest.make_config(**changes)
    advance = train.make_advance

    def slowly(*arguments):
        step_of = advance(*arguments)
        return lambda *of_step: (time.sleep(pause), step_of(*of_step))[1]

    together = train.advancing

    @contextlib.contextmanager
    def slowly_together(*arguments):
        with together(*arguments) as (advance_all, spread):
            yield lambda *of_step: (time.sleep(pause), advance_all(*of_step))[1], spread

    train.make_advance, train.advancing = slowly, slowly_together
    _write_to(f'{workdir}.err{suffix}')
    cli.run(lambda: train.main(['--config=x', f'--workdir={workdir}']))


def _train_toy(workdir, index, num, port, devices, changes):
    from fer_jax import cli, distributed
    from fer_jax.training.stopping import Stopped
    from tests import toy

    os.environ['XLA_FLAGS'] = f'{QUICKLY} --xla_force_host_platform_device_count={devices}'

    _write_to(f'{workdir}.err.{index}')

    def main():
        if num > 1:
            distributed.initialise(f'localhost:{port}', num, index)
        with distributed.together(cli.explain):
            try:
                state = toy.train(workdir, **changes)
            except Stopped as stopped:
                print(f'\nstopped at step {stopped.args[1]}', file=sys.stderr, flush=True)
                return 128 + stopped.args[0]
            print('ended as', toy.digest(state), flush=True)
        return 0

    cli.run(main)


def _run_source(place, source, variables):
    os.environ.update(variables)
    sys.argv = ['fer_jax/train.py']
    for number, end in ((1, 'out'), (2, 'err')):
        with open(f'{place}.{end}', 'w') as file:
            os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = (os.fdopen(number, 'w', 1, closefd=False) for number in (1, 2))
    exec(source, {})


def finish(process, seconds=300):
    """Its exit code, negative for a signal."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        raise AssertionError('the run hangs')
    return process.exitcode


def words(workdir, index=None):
    """What a run wrote to its standard output and error."""
    path = f'{workdir}.err' + ('' if index is None else f'.{index}')
    with open(path) as file:
        return file.read().replace('\r', '\n')


def said(pattern, text):
    """What the group of a pattern caught, wherever a line of the text begins so."""
    return re.findall('^' + pattern, text, re.MULTILINE)


def restore_latest(checkpoints, model, optimizer):
    """Model, optimizer and position of the newest checkpoint that is whole, or None."""
    step = checkpoints.newest()
    return None if step is None else checkpoints.restore(step, model, optimizer)


def steps(workdir):
    """Of its complete checkpoints."""
    folder = os.path.join(workdir, 'checkpoints')
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(int(name) for name in names if name.isdigit())


def wait_for(workdir, step, process):
    """Until a checkpoint of at least that step is complete."""
    for _ in range(6000):
        if any(found >= step for found in steps(workdir)):
            return
        assert process.is_alive(), f'it ended with {process.exitcode} before step {step}'
        time.sleep(0.02)
    raise AssertionError('no checkpoint in two minutes')


def log(workdir):
    """The log points of a run, without the time."""
    with open(os.path.join(workdir, 'metrics.jsonl')) as file:
        lines = [json.loads(line) for line in file]
    for line in lines:
        line.pop('seconds')
    return lines


def parameters(workdir, step=MODEL['train__steps']):
    """Every array of a checkpoint, by its place."""
    return by_place(trees(workdir, step))


def by_place(tree):
    import jax

    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def trees(workdir, step):
    """The model's and the optimiser's arrays of a checkpoint."""
    import orbax.checkpoint as ocp

    folder = os.path.join(workdir, 'checkpoints', str(step))
    with contextlib.closing(ocp.PyTreeCheckpointer()) as reader, warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that it is read without a target
        return [_read_arrays(reader, os.path.join(folder, item)) for item in ('model', 'optimizer')]


def _read_arrays(reader, folder):
    import jax
    import orbax.checkpoint as ocp

    there = reader.metadata(folder).item_metadata.tree
    # As numpy's, since the devices that wrote them may not be here.
    return reader.restore(folder, restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), there))


def assert_ended_alike(broken, whole, step):
    """Two runs have the same log points and, to the bit, the same last state."""
    assert log(broken) == log(whole)
    expected, found = parameters(whole, step), parameters(broken, step)
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def kill_at_random(workdir, chance, plan, changes=MODEL):
    """Launches a run, ends it a moment after step N by the signal, for each (signal, N) of a plan; gives the codes."""
    for number, step in plan:
        process = launch(workdir, changes, pause=0.02)
        wait_for(workdir, step, process)
        time.sleep(chance.random() * 0.2)
        os.kill(process.pid, number)
        yield number, finish(process)


def damage_file(folder, chance):
    """Flips one bit of a file, or cuts the file, as bad disks and broken copies do; says what it did."""
    paths = [os.path.join(parent, name) for parent, _, names in sorted(os.walk(folder)) for name in sorted(names)]
    path = chance.choice([path for path in paths if os.path.getsize(path)])
    place = chance.randrange(os.path.getsize(path))
    if chance.random() < 0.25:
        os.truncate(path, place)
        return f'{path} cut to {place}'
    bit = chance.randrange(8)
    with open(path, 'r+b') as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))
    return f'{path} bit {bit} of byte {place}'


@contextlib.contextmanager
def small_disk(path, kilobytes):
    """A tmpfs of that size at a new folder; skips the test where mounting needs rights that it has not."""
    os.makedirs(path)
    mount = ['mount', '-t', 'tmpfs', '-o', f'size={kilobytes}k', 'tmpfs', str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip('mounting a small file system needs root')
    try:
        yield path
    finally:
        subprocess.run(['umount', '-l', str(path)], check=True)


def fill(folder, room):
    """Fills the disk but for so many bytes, while others may be writing; gives the file that does."""
    path = os.path.join(folder, 'filler')
    with contextlib.suppress(OSError), open(path, 'wb', buffering=0) as file:
        while True:
            file.write(bytes(2**16))
    os.truncate(path, max(0, os.path.getsize(path) - room))
    return path


def stop_one_of_two(processes, workdir, chance):
    """SIGTERM to one of two processes at a random moment; asserts that both stop at one step and save it.

    Returns:
        The step.
    """
    wait_for(workdir, max(steps(workdir), default=0) + 1, processes[0])
    time.sleep(chance.random() * 0.3)
    os.kill(chance.choice(processes).pid, signal.SIGTERM)
    assert [finish(process) for process in processes] == [143, 143]
    (step,) = said(r'stopped at step (\d+)', words(workdir, 0))[-1:]
    assert steps(workdir)[-1] == int(step)
    return int(step)
