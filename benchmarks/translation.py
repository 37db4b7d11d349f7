"""CycleGAN's training step of fer_jax and of PyTorch, the same networks from the same parameters, in turn in one run.

    python benchmarks/translation.py [--sides=64,128] [--batch=0] [--dtype=bfloat16] [--compile] [--pairs=5] …

A step is one of both generators and both discriminators by Adam, with identity losses, pools of past translations and
an average of the generators. PyTorch runs eagerly, with channels last and, with --compile, its networks through
torch.compile; it shares the passes that ours shares, its Adam is the fused one, and the fastest of its ways by median
is what the ratio is to. fer_jax runs as many steps per program as the train command would. Mirroring is left out, so
that the losses of the first steps can be compared. The floor is the step's operations, as XLA counts them in the
program before it optimises it, at the best rate at which either multiplies matrices here.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import machine
import numpy as np
import pairs
import torch
from torch_translators import Pair, draw_state

from fer_jax.models.cyclegan import Discriminator, Generator
from fer_jax.models.operations import count_operations
from fer_jax.training.cyclegan import Task, train_step
from fer_jax.training.dispatch import key_numbers, make_steps, steps_per_dispatch
from fer_jax.training.optimizer import OptimizerOptions, make_optimizer

_CHANNELS, _RATE, _SHOWN = 1, 2e-4, 3  # FER2013's grey images; steps whose losses are compared
# What the first loss may differ by; float32 is TF32 on a GPU. Adam's first steps go by the signs of gradients alone, so
# that later losses part for rounding: they may differ by a fifth.
_APART, _APART_LATER = {'cpu': 1e-3, 'cuda': 0.02, 'bfloat16': 0.1}, 0.2


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the flags and prints the table; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sides', default='64,128', help='of the images in pixels')
    parser.add_argument('--batch', default='', help='pairs of images of a step, or several: 8,32; 2 on a CPU, else 8')
    parser.add_argument('--width', type=int, default=64, help="channels of the networks' first layers")
    parser.add_argument('--blocks', type=int, default=9, help='residual blocks of a generator')
    machine.add_flags(parser)
    flags = parser.parse_args(argv)
    device, rate, names = machine.begin(flags)
    print('| pairs of images | first loss, third differ by | fer_jax, pairs/s |', ' | '.join(names), end=' | ')
    print('ratio to the fastest | of the floor |')
    print('| --- | ---: | ---: |' + ' ---: |' * (len(names) + 2))
    for side in map(int, flags.sides.split(',')):
        for batch in map(int, (flags.batch or ('2' if device == 'cpu' else '8')).split(',')):
            label = f'{batch} x {side} px'
            machine.attempt(label, lambda s=side, b=batch: print(_row(s, b, names, rate, device, flags)))
    print(f'\nload {os.getloadavg()[0]:.1f} at the end')


def _row(side: int, batch: int, variants: Sequence[str], rate: float, device: str, flags: argparse.Namespace) -> str:
    label = f'{batch} x {side} px'
    task = Task(
        Generator(_CHANNELS, flags.blocks, flags.width, dtype=jnp.dtype(flags.dtype)),
        Discriminator(tuple(flags.width * 2**layer for layer in range(4)), jnp.dtype(flags.dtype)),
        make_optimizer(OptimizerOptions('adam', _RATE, b1=0.5), lambda _: _RATE),
        side,
        _CHANNELS,
        flip=False,
        ema=0.999,
    )
    state = draw_state(task)
    parameters = jax.device_get({'generators': state.generators, 'discriminators': state.discriminators})
    drawn = np.random.default_rng(0).integers(0, 256, (2, batch, side, side, _CHANNELS)).astype(np.uint8)
    batch_of = {f'images_{domain}': images for domain, images in zip('ab', drawn, strict=True)}
    flops = count_operations(partial(train_step, task), state, batch_of, jax.random.key(0))
    runs = {'fer_jax': _Ours(task, state, drawn)}
    first = {'fer_jax': [runs['fer_jax'].steps(1) for _ in range(_SHOWN)]}
    apart = {}
    for variant in variants:

        def make(variant=variant):
            run = _Theirs(task, state.replace(**parameters), drawn, variant, device, flags.dtype)
            first[variant] = [run.steps(1) for _ in range(_SHOWN)]
            apart[variant] = [abs(a / b - 1) for a, b in zip(first[variant], first['fer_jax'], strict=True)]
            limits = [_APART[device if flags.dtype == 'float32' else flags.dtype], *[_APART_LATER] * (_SHOWN - 1)]
            if not all(np.less_equal(apart[variant], limits)):
                raise ValueError(f'losses of the first steps are {first[variant]}, of fer_jax {first["fer_jax"]}')
            runs[variant] = run

        machine.attempt(f'{label}, {variant}', make)
    rates = pairs.measure({who: run.steps for who, run in runs.items()}, batch, flags.seconds, flags.pairs)
    theirs = [variant for variant in variants if variant in runs]
    ratio = rates.ratio('fer_jax', rates.fastest(theirs)) if theirs else '–'
    cells = [f'{rates.median(who):,.1f}' if who in runs else '–' for who in ('fer_jax', *variants)]
    worst = ', '.join(f'{max(apart[variant][step] for variant in theirs):.0e}' for step in (0, -1)) if theirs else '–'
    share = f'{100 * rates.median("fer_jax") * flops / batch / rate:.0f} %'
    return f'| {label} | {worst} | {" | ".join(cells)} | {ratio} | {share} |'


class _Ours:
    """Our steps, as the train command makes them."""

    def __init__(self, task, state, drawn):
        self._dispatch = steps_per_dispatch(0, jax.default_backend(), drawn.nbytes)
        self._program = jax.jit(make_steps(partial(train_step, task), self._dispatch), donate_argnums=0)
        self._state, self._key = state, key_numbers(0)
        stack = lambda images: jnp.asarray(np.broadcast_to(images, (self._dispatch, *images.shape)))
        self._batches = {f'images_{domain}': stack(images) for domain, images in zip('ab', drawn, strict=True)}

    def steps(self, count: int) -> float:
        """The mean loss of the last ones of so many steps."""
        while count > 0:
            now = min(count, self._dispatch)
            self._state, sums = self._program(self._state, self._batches, now, self._key)
            count -= now
        jax.block_until_ready(self._state)
        return float(sums['loss']) / now


class _Theirs:
    """PyTorch's steps."""

    def __init__(self, task, state, drawn, variant, device, dtype):
        self._layout = torch.channels_last if variant == 'channels last' else torch.contiguous_format
        self._pair = Pair(
            task,
            state,
            partial(torch.optim.Adam, lr=_RATE, betas=(0.5, 0.999), fused=True),
            lambda network: network.to(device, memory_format=self._layout),
            together=True,
            precision=torch.bfloat16 if dtype == 'bfloat16' else None,
            wrap=partial(torch.compile, dynamic=False) if variant == 'compiled' else lambda network: network,
        )
        put = lambda images: torch.tensor(images.transpose(0, 3, 1, 2).copy()).to(device, memory_format=self._layout)
        self._images = {domain: put(images) for domain, images in zip('ab', drawn, strict=True)}
        self._random, self._size = random.Random(0), task.pool

    def steps(self, count: int) -> float:
        """The last of so many steps' losses."""
        for _ in range(count):
            real = {domain: images.float() / 127.5 - 1 for domain, images in self._images.items()}
            batch = len(real['a'])
            swaps = [self._random.random() < 0.5 for _ in range(batch)]
            metrics = self._pair.step(real, swaps, [self._random.randrange(self._size) for _ in range(batch)])
        machine.wait()
        return float(metrics['loss'])


if __name__ == '__main__':
    main()
