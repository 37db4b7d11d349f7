"""The renderer of synthetic faces: faces a second at every side, in grey and colour, and the share of the floor.

    python benchmarks/renderer.py [--sides=32,48,64,128,224] [--faces=1024] [--rounds=5]

Drawing goes from parameters to uint8 images in the host's memory; drawing the parameters themselves stands beside it.
The floor is the longer of two times: the program's operations, as XLA counts them before it optimises it, at the
rate at which matrices are multiplied here, and the images' bytes, written once, at the rate at which memory is copied.
A drawn face is edges, exponentials and choices over every pixel and no product of matrices, so the share is small.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import machine
import numpy as np

from fer_jax.data.face_renderer import draw
from fer_jax.data.synthetic import render, sample_parameters
from fer_jax.models.operations import count_operations


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the flags and prints the table; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sides', default='32,48,64,128,224', help='pixels, with commas')
    parser.add_argument('--faces', type=int, default=1024, help='drawn at 48 px; of larger ones fewer')
    parser.add_argument('--rounds', type=int, default=5)
    flags = parser.parse_args(argv)
    machine.start()
    rate, copied = machine.matrix_rate('float32'), _copy_rate()
    more = f'medians of {flags.rounds}; matrices at {rate / 1e9:,.0f} GFLOP/s, copies at {copied / 1e9:.1f} GB/s'
    print(f'{machine.headline(more)}\n')
    took, _ = _measure(lambda: sample_parameters(0, np.arange(flags.faces)), flags.rounds)
    print(f'parameters of {flags.faces / took:,.0f} faces a second\n')
    print('| faces | a second | processor ms each | MFLOP each | of the floor |')
    print('| --- | ---: | ---: | ---: | ---: |')
    for side in (int(text) for text in flags.sides.split(',')):
        count = max(16, min(flags.faces, round(flags.faces * (48 / side) ** 2)))
        parameters, _ = sample_parameters(0, np.arange(count))
        for channels, kind in ((1, 'grey'), (3, 'colour')):
            took, busy = _measure(lambda p=parameters, s=side, c=channels: render(p, s, c), flags.rounds)
            few = jax.tree.map(lambda array: jnp.asarray(array[:16]), parameters)
            flops = count_operations(lambda faces, s=side, c=channels: draw(faces, s, c), few) / 16
            floor = max(flops / rate, side * side * channels / copied)
            cells = f'{count / took:,.0f} | {1e3 * busy / count:.2f} | {flops / 1e6:.1f}'
            print(f'| {side} px, {kind} | {cells} | {100 * floor * count / took:.0f} % |')
    print(f'\nload {os.getloadavg()[0]:.1f} at the end')


def _measure(work: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Medians of the wall's and the processor's seconds, once all is compiled."""
    work()
    wall, busy = [], []
    for _ in range(rounds):
        began, processor = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - began)
        busy.append(time.process_time() - processor)
    return statistics.median(wall), statistics.median(busy)


def _copy_rate(size: int = 2**28) -> float:
    """Bytes a second, each read and written once, of NumPy's copy; the best of five."""
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)

    def once():
        began = time.perf_counter()
        np.copyto(target, source)
        return time.perf_counter() - began

    return size / min(once() for _ in range(5))


if __name__ == '__main__':
    main()
