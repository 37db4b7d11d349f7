"""From a command's start to its first step, and the memory for it: an empty compilation cache, a filled one, PyTorch.

    python benchmarks/start.py [--networks=shallow_cnn,wider_cnn,resnet18] [--rounds=5] [--images=2048] [--batch=128]

Each is a process of its own; they take turns. Ours is `fer_jax.train` with a configuration of configs/fer2013 on a
prepared set of drawn faces, from its start until the first step's loss stands in metrics.jsonl: imports, data, first
values, compilation and the step. PyTorch's does the least that a script can: it imports PyTorch, loads the same network
as a TorchScript file, and takes one eager step of SGD on random images; no data, no checks, no record. Seconds are of
the wall clock; medians, and the range in brackets. Memory is the most that the process had on the host by then.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import machine
import numpy as np
import torch
from torch_networks import build, draw

from fer_jax.data.dataset import EMOTIONS, Dataset, Split, pixel_hash
from fer_jax.data.prepared import describe, store_prepared
from fer_jax.data.synthetic import load_synthetic
from fer_jax.models import create_model

_SIDE = 48
_OF_JAXS_CACHE = ('JAX_COMPILATION_CACHE', 'JAX_PERSISTENT_CACHE')  # they come before ours
_PYTORCH = """
import sys, torch
network, batch = torch.jit.load(sys.argv[1]).to(sys.argv[2]), int(sys.argv[3])
optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)
images = torch.rand(batch, 1, 48, 48, device=sys.argv[2])
labels = torch.randint(0, 7, (batch,), device=sys.argv[2])
loss = torch.nn.functional.cross_entropy(network(images), labels)
loss.backward()
optimizer.step()
print(loss.item(), flush=True)
print(open('/proc/self/status').read())
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the flags, measures and prints the table; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--networks', default='shallow_cnn,wider_cnn,resnet18', help='of configs/fer2013')
    parser.add_argument('--rounds', type=int, default=5, help='how often all start')
    parser.add_argument('--images', type=int, default=2048)
    parser.add_argument('--batch', type=int, default=128)
    flags = parser.parse_args(argv)
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
    device = machine.start()
    print(f'{machine.headline(f"{flags.images} images, batch {flags.batch}, medians of {flags.rounds} rounds")}\n')
    print('| network | empty cache | filled cache | PyTorch, one step alone | memory, MiB: empty | filled | PyTorch |')
    print('| --- | ---: | ---: | ---: | ---: | ---: | ---: |')
    with tempfile.TemporaryDirectory() as folder:
        data = _prepare(Path(folder, 'data'), flags.images)
        for name in flags.networks.split(','):
            script = os.path.join(folder, f'{name}.pt')
            _script(name, script, flags.batch)
            pytorch = [sys.executable, '-c', _PYTORCH, script, device, str(flags.batch)]
            found = {'empty': [], 'filled': [], 'pytorch': []}
            for turn in range(flags.rounds):
                place = os.path.join(folder, f'{name}{turn}')
                for cache in ('empty', 'filled'):
                    found[cache].append(_first_step(name, data, f'{place}{cache}', f'{place}cache', flags.batch))
                began = time.perf_counter()
                with subprocess.Popen(pytorch, stdout=subprocess.PIPE, text=True) as process:
                    if not process.stdout.readline():
                        sys.exit('PyTorch ended; what it said is above')
                    took = time.perf_counter() - began
                    found['pytorch'].append((took, machine.most_memory(process.stdout.read())))
            seconds, memory = zip(*(zip(*of, strict=True) for of in found.values()), strict=True)
            cells = [*map(_cell, seconds), *(f'{statistics.median(of):,.0f}' for of in memory)]
            print(f'| `{name}` | {" | ".join(cells)} |')


def _prepare(directory: Path, count: int) -> str:
    classes = EMOTIONS[:7]
    splits = {}
    for name, drawn in load_synthetic(count, 64, 64, classes=classes, size=_SIDE).splits.items():
        hashes = np.array([pixel_hash(image) for image in drawn.images])
        splits[name] = Split(drawn.images, drawn.labels, drawn.ids, hashes)
    manifest = describe('faces', classes, splits, (_SIDE, _SIDE, 1)) | {'source': 'drawn'}
    directory.mkdir()
    store_prepared(Dataset('faces', classes, splits, manifest), directory)
    return os.fspath(directory)


def _script(name: str, path: str, batch: int) -> None:
    variables = draw(create_model(name, 7), _SIDE, 1)
    network, _ = build(name, jax.device_get(variables))
    torch.jit.trace(network.train(), torch.rand(batch, 1, _SIDE, _SIDE), check_trace=False).save(path)


def _first_step(name: str, data: str, workdir: str, cache: str, batch: int) -> tuple[float, float]:
    """Seconds and MiB."""
    changes = {'data.name': data, 'data.drop': '', 'train.batch_size': batch, 'train.steps': 1_000_000}
    changes |= {'log_every_steps': 1, 'schedule.name': 'constant', 'schedule.warmup_epochs': 0}
    command = [sys.executable, '-m', 'fer_jax.train', f'--config=configs/fer2013/{name}.py', f'--workdir={workdir}']
    command += [f'--config.{field}={value}' for field, value in changes.items()]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OF_JAXS_CACHE)}
    environment['FER_JAX_COMPILATION_CACHE'] = cache
    record = Path(workdir, 'metrics.jsonl')
    began = time.perf_counter()
    with (
        open(f'{workdir}.err', 'w') as words,
        subprocess.Popen(command, env=environment, stdout=words, stderr=words) as process,
    ):
        try:
            while not (record.exists() and record.stat().st_size):
                if process.poll() is not None:
                    sys.exit(Path(f'{workdir}.err').read_text()[-2000:])
                time.sleep(0.01)
            return time.perf_counter() - began, machine.most_memory(Path(f'/proc/{process.pid}/status').read_text())
        finally:
            process.kill()


def _cell(seconds: Sequence[float]) -> str:
    return f'{statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})'


if __name__ == '__main__':
    main()
