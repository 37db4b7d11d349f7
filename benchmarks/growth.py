"""How the cost of training grows: with images, with members, with devices that share the cores, with the image's side.

    python benchmarks/growth.py [--of=images,members,devices,side] [--seconds=10] [--output=DIR] [--picture=growth.png]

Every point is a command of its own, `fer_jax.train` on drawn faces with a configuration of configs/fer2013, until it
has trained for so many seconds after its first record, which is of step 1, on a GPU of step 32. The record is counted
from the command's start: imports, drawing the faces, first values, compilation into an empty cache, the step. Images
per second are those of all members, memory is the most that the process had (of the host). Devices are fake ones of
the CPU: what sharing a step out costs where nothing is gained. With --output points that are there are not measured
again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import machine

BATCH, _UNTIMED = 128, 2  # images, records
POINTS = {
    'images': ('shallow_cnn', (1_000, 10_000, 100_000, 800_000)),
    'members': ('shallow_cnn', (1, 2, 4, 8, 16, 32)),
    'devices': ('shallow_cnn', (1, 2, 4, 8)),
    'side': ('resnet10', (32, 48, 64, 96, 128, 160, 224)),
}
TITLES = {
    'images': 'Training images',
    'members': 'Members trained together',
    'devices': 'Fake devices of one CPU',
    'side': 'Side of the image, pixels',
}
COLUMNS = {'rate': 'images/s', 'first': 'start to first record, s', 'memory': 'memory, MiB'}
_FOR_ALL = {
    'data.name': 'synthetic',
    'data.drop': '',
    'data.crop': 0,
    'data.synthetic.num_train': 2_000,
    'data.synthetic.num_validation': 64,
    'data.synthetic.num_test': 64,
    'train.batch_size': BATCH,
    'train.steps': 1_000_000,
    'schedule.name': 'constant',
    'schedule.warmup_epochs': 0,
    'evaluation.every_steps': 1_000_000,  # and with it checkpoints: never
    'checkpoint.snapshot_steps': 0,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the flags, measures, prints the tables and draws the picture; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--of', default=','.join(POINTS), help='with commas')
    parser.add_argument('--seconds', type=float, default=10.0, help='of training at each point')
    parser.add_argument('--most', type=int, default=800_000, help='images of the largest set')
    parser.add_argument('--output', default='', help='directory of points that are measured; it is gone on with')
    parser.add_argument('--picture', default='', help='where the picture goes (PNG)')
    flags = parser.parse_args(argv)
    wanted = flags.of.split(',')
    for name in wanted:
        if name not in POINTS:
            parser.error(f'--of: there is no {name!r}; there are {", ".join(POINTS)}')
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # a GPU is the commands'
    print(f'{machine.headline(f"batches of {BATCH}, {flags.seconds:g} s of training at each point")}\n')
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(flags.output or folder)
        place.mkdir(parents=True, exist_ok=True)
        for name in wanted:
            network, values = POINTS[name]
            found[name] = {}
            print(f'| {TITLES[name].lower()} (`{network}`) | {" | ".join(COLUMNS.values())} |')
            print('| ---: | ---: | ---: | ---: |')
            for value in (value for value in values if name != 'images' or value <= flags.most):
                point = found[name][value] = _measure(name, value, place, folder, flags.seconds)
                cells = f'{point["rate"]:,.0f} | {point["first"]:.1f} | {point["memory"]:,.0f}'
                print(f'| {value:,} | {cells} |', flush=True)
            print()
    if flags.picture:
        draw(found, flags.picture)


def _measure(name: str, value: int, place: Path, folder: str, seconds: float) -> dict[str, float]:
    kept = place / f'{name}_{value}.json'
    if kept.exists():
        return json.loads(kept.read_text())
    point = _train(POINTS[name][0], *_changes(name, value), Path(folder, f'{name}_{value}'), seconds)
    kept.write_text(json.dumps(point))
    return point


def _changes(name: str, value: int) -> tuple[dict[str, object], dict[str, str]]:
    """Fields of the configuration and variables of the environment."""
    if name == 'devices':
        return {}, {'XLA_FLAGS': f'--xla_force_host_platform_device_count={value}', 'JAX_PLATFORMS': 'cpu'}
    if name == 'side':  # a batch that has the pixels of about one of 48 px
        return {'data.synthetic.size': value, 'train.batch_size': max(8, round(BATCH * (48 / value) ** 2 / 8) * 8)}, {}
    return {{'images': 'data.synthetic.num_train', 'members': 'ensemble.members'}[name]: value}, {}


def _train(
    network: str, changes: Mapping[str, object], variables: Mapping[str, str], workdir: Path, seconds: float
) -> dict[str, float]:
    """Starts a training, waits until it has trained long enough, and ends it."""
    fields = _FOR_ALL | {'log_every_steps': 1 if jax.default_backend() == 'cpu' else 32} | dict(changes)
    command = [sys.executable, '-m', 'fer_jax.train', f'--config=configs/fer2013/{network}.py', f'--workdir={workdir}']
    command += [f'--config.{field}={of}' for field, of in fields.items()]
    record = workdir / 'seed0' if 'ensemble.members' in changes and changes['ensemble.members'] > 1 else workdir
    record = record / 'metrics.jsonl'
    words = Path(f'{workdir}.err')
    began, first = time.perf_counter(), None
    environment = os.environ | {'FER_JAX_COMPILATION_CACHE': f'{workdir}.cache'} | dict(variables)
    with words.open('w') as said, subprocess.Popen(command, env=environment, stdout=said, stderr=said) as process:
        try:
            while True:
                points = _points(record)
                if points and first is None:
                    first = time.perf_counter() - began
                if len(points) > _UNTIMED + 2 and points[-1]['seconds'] - points[_UNTIMED]['seconds'] >= seconds:
                    break
                if process.poll() is not None:
                    sys.exit(words.read_text()[-2000:])
                time.sleep(0.05)
            status = Path(f'/proc/{process.pid}/status').read_text()
        finally:
            process.kill()
    steps, took = (points[-1][of] - points[_UNTIMED][of] for of in ('step', 'seconds'))
    members, batch = fields.get('ensemble.members', 1), fields['train.batch_size']
    return {'rate': members * batch * steps / took, 'first': first, 'memory': machine.most_memory(status)}


def _points(record: Path) -> list[dict]:
    """The whole lines of a record."""
    if not record.exists():
        return []
    return [json.loads(line) for line in record.read_text().splitlines(keepends=True) if line.endswith('\n')]


def draw(found: Mapping[str, Mapping[int, Mapping[str, float]]], path: str) -> None:
    """A column of panels for each of what grows: images per second, first step, memory."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(
        len(COLUMNS), len(found), figsize=(3.2 * len(found), 6.6), sharex='col', sharey='row', squeeze=False
    )
    for column, (name, points) in zip(panels.T, found.items(), strict=True):
        for panel, (measure, words) in zip(column, COLUMNS.items(), strict=True):
            values = [point[measure] for point in points.values()]
            panel.plot(list(points), values, 'o-', color='#2166ac', markersize=4)
            panel.set_xscale('log')
            if measure == 'rate':
                panel.set_yscale('log')
            else:
                panel.set_ylim(0, 1.1 * max(point[measure] for points in found.values() for point in points.values()))
            panel.grid(which='major', color='0.9')
            panel.set_axisbelow(True)
            if panel is column[0]:
                panel.set_title(f'{TITLES[name]}\n{POINTS[name][0]}', fontsize=10)
            if name == next(iter(found)):
                panel.set_ylabel(words)
        ticks = list(points)
        column[-1].set_xticks(ticks, [f'{tick:,}' if tick < 1000 else f'{tick // 1000}k' for tick in ticks], fontsize=8)
        column[-1].minorticks_off()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == '__main__':
    main()
