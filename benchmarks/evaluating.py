"""Ensembles evaluated by fer_jax and by PyTorch, the same members on the same images, in turn in one run.

    python benchmarks/evaluating.py [--networks=shallow_cnn,wider_cnn,resnet18] [--tta=none,ten_crop] [--members=9] …

An evaluation goes from stored images in the host's memory to the logits of every member there. fer_jax runs all members
in one program, as the evaluate command does; on a GPU `batched` and `one after the other` are such programs that do
and do not batch them, of which the command takes the one that pays. `member by member` is a program for one that is
called for each. PyTorch loops over members within each batch, whose views it makes once; it runs eagerly, with channels
last and, with --compile, through torch.compile, and the fastest of its ways by median is what the ratio is to. Logits
are compared first. The floor is the networks' operations, as XLA counts them in the program before it optimises it, at
the best rate at which either multiplies matrices here.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial

import machine
import numpy as np
import pairs
import torch
from torch_networks import build, draw

from fer_jax.data.preprocess import VIEWS, Preprocessing
from fer_jax.evaluation.inference import make_predict, predict_split, stack_members
from fer_jax.models import create_model
from fer_jax.models.operations import count_operations
from fer_jax.training.mesh import make_placement

# Images of an evaluation on a CPU and on a GPU; with several views a seventh of them.
IMAGES = {'shallow_cnn': (512, 7168), 'wider_cnn': (128, 7168), 'resnet18': (32, 3584)}
_SIDE, _CLASSES = 48, 7
_HOW = Preprocessing(_SIDE, 1, 0, 'dataset', 127.5, 64.0)
_APART = {'cpu': 1e-3, 'cuda': 0.05, 'bfloat16': 0.1}  # of the logits' deviation; float32 is TF32 on a GPU


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the flags and prints the table; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--networks', default=','.join(IMAGES), help='with commas')
    parser.add_argument('--tta', default='none,ten_crop', help=f'of {", ".join(VIEWS)}')
    parser.add_argument('--members', type=int, default=9)
    parser.add_argument('--images', type=int, default=0, help='of an evaluation, instead of those of each network')
    parser.add_argument('--batch', type=int, default=256, help='images at a time')
    parser.add_argument('--pairs', type=int, default=5, help='how often all run')
    parser.add_argument('--seconds', type=float, default=4.0, help='of evaluations per turn, about; at least one')
    parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'), help='of the computation')
    parser.add_argument('--compile', action='store_true', help='torch.compile too')
    flags = parser.parse_args(argv)
    device = machine.start()
    rate = machine.matrix_rate(flags.dtype)
    more = (
        f'{flags.members} members, {flags.dtype}, medians of {flags.pairs} turns; matrices at {rate / 1e9:,.0f} GFLOP/s'
    )
    print(f'{machine.headline(more)}\n')
    theirs = ['eager', 'channels last', *(['compiled'] if flags.compile else [])]
    ours = ['fer_jax', *(['batched', 'one after the other'] if device == 'cuda' else []), 'member by member']
    print('| network, views | images | logits differ by |', ' | '.join([*ours, *theirs]), end=' | ')
    print('ratio to the fastest PyTorch | to member by member | of the floor |')
    print('| --- | --- |' + ' ---: |' * (len(ours) + len(theirs) + 4))
    for name in flags.networks.split(','):
        for tta in flags.tta.split(','):
            machine.attempt(
                f'{name}, {tta}', lambda n=name, t=tta: print(_row(n, t, ours, theirs, rate, device, flags))
            )
    print(f'\nload {os.getloadavg()[0]:.1f} at the end')


def _row(name, tta, our_ways, their_ways, rate, device, flags) -> str:
    count = flags.images or IMAGES[name][device == 'cuda'] // (7 if VIEWS[tta] > 1 else 1)
    label = f'{name}, {tta}'
    images = np.random.default_rng(0).integers(0, 256, (count, _SIDE, _SIDE, 1)).astype(np.uint8)
    model = create_model(name, _CLASSES, flags.dtype, dropout=0.0)
    members = [draw(create_model(name, _CLASSES, dropout=0.0), _SIDE, 1, seed) for seed in range(flags.members)]
    runs, expected, apart = {}, None, 0.0
    for way in (*our_ways, *their_ways):

        def make(way=way):
            nonlocal expected, apart
            if way in our_ways:
                run = _Ours(model, members, images, tta, way, flags.batch)
            else:
                run = _Theirs(name, members, images, tta, way, device, flags)
            found = run.evaluate()
            expected = found if expected is None else expected
            worst = float(np.abs(found - expected).max() / expected.std())
            if not worst <= _APART[device if flags.dtype == 'float32' else flags.dtype]:
                raise ValueError(f'logits differ from fer_jax by {worst:.1e} of their deviation')
            runs[way], apart = run, max(apart, worst)

        machine.attempt(f'{label}, {way}', make)
    rates = pairs.measure({who: run.repeat for who, run in runs.items()}, count, flags.seconds, flags.pairs)
    there = [way for way in their_ways if way in runs]
    ratio = lambda others: rates.ratio('fer_jax', others) if {'fer_jax', others} <= runs.keys() else '–'
    flops = _flops(model, members[0]) * flags.members * VIEWS[tta]
    cells = [f'{rates.median(way):,.1f}' if way in runs else '–' for way in (*our_ways, *their_ways)]
    cells += [ratio(rates.fastest(there) if there else ''), ratio('member by member')]
    cells += [f'{100 * rates.median("fer_jax") * flops / rate:.0f} %' if 'fer_jax' in runs else '–']
    return f'| {label} | {count} | {apart:.0e} | {" | ".join(cells)} |'


def _flops(model, variables) -> float:
    """Of one image."""
    model = model.clone(blocked=False) if hasattr(model, 'blocked') else model  # blocks multiply zeros too
    image = np.zeros((1, _SIDE, _SIDE, 1), np.float32)
    return count_operations(lambda variables, image: model.apply(variables, image)[0], variables, image)


class _Ours:
    """As the evaluate command does it, or otherwise."""

    def __init__(self, model, members, images, tta, way, batch):
        placement = make_placement()
        mapped = {'batched': False, 'one after the other': True}.get(way)
        predict = make_predict(model, _HOW, tta, map_members=mapped, placement=placement)
        groups = [[member] for member in members] if way == 'member by member' else [members]
        stacks = [placement.everywhere(stack_members(group)) for group in groups]
        predict_all = partial(predict_split, images_NHWC=images, batch_size=batch, placement=placement)
        self.evaluate = lambda: np.concatenate([predict_all(predict, stack) for stack in stacks])

    def repeat(self, count: int) -> None:
        """Evaluates so many times."""
        for _ in range(count):
            self.evaluate()


class _Theirs:
    """PyTorch's loop over members."""

    def __init__(self, name, members, images, tta, variant, device, flags):
        self._layout = torch.channels_last if variant == 'channels last' else torch.contiguous_format
        self._networks = [self._convert(build(name, member)[0], device) for member in members]
        if variant == 'compiled':
            self._networks = [torch.compile(network, dynamic=False) for network in self._networks]
        self._dtype = torch.bfloat16 if flags.dtype == 'bfloat16' else None
        self._images, self._tta, self._device, self._batch = images, tta, device, flags.batch

    def _convert(self, network, device):
        for layer in network.modules():
            layer._forward_hooks.clear()  # by which tests count
        return network.to(device).eval().to(memory_format=self._layout)

    def evaluate(self) -> np.ndarray:
        """Logits [M, N, K]."""
        found = []
        with torch.inference_mode(), torch.autocast(self._device, self._dtype, enabled=self._dtype is not None):
            for start in range(0, len(self._images), self._batch):
                part = torch.from_numpy(self._images[start : start + self._batch]).to(self._device, non_blocking=True)
                inputs = self._views(part.permute(0, 3, 1, 2).float())
                logits = torch.stack([network(inputs).float() for network in self._networks])
                found.append(self._average(logits, len(part)))
            return torch.cat(found, 1).cpu().numpy()

    def _views(self, images):
        windows = [images]
        if self._tta in ('five_crop', 'ten_crop'):
            window = _SIDE * 11 // 12
            free = _SIDE - window
            starts = [(0, 0), (0, free), (free, 0), (free, free), (free // 2, free // 2)]
            cut = [images[:, :, top : top + window, left : left + window] for top, left in starts]
            resize = partial(torch.nn.functional.interpolate, size=(_SIDE, _SIDE), mode='bilinear')
            windows = [resize(one) for one in cut]
        if self._tta in ('flip', 'ten_crop'):
            windows += [one.flip(3) for one in windows]
        return ((torch.cat(windows) - _HOW.mean) / _HOW.deviation).contiguous(memory_format=self._layout)

    def _average(self, logits, count):
        if VIEWS[self._tta] == 1:
            return logits
        views = torch.log_softmax(logits, -1).view(len(logits), -1, count, _CLASSES)
        return torch.logsumexp(views, 1) - np.log(views.shape[1])

    def repeat(self, count: int) -> None:
        """Evaluates so many times."""
        for _ in range(count):
            self.evaluate()


if __name__ == '__main__':
    main()
