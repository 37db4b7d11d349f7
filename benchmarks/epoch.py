"""Whole epochs of fer_jax and of PyTorch: order, batches, augmentation, steps; in turn in one run.

    python benchmarks/epoch.py [--networks=shallow_cnn,wider_cnn,resnet18] [--images=2048] [--pairs=5] …

An epoch goes over so many uint8 images of 48 px in a new order, flips, turns, shifts and zooms each of them at random,
cuts 40 px, normalises each image by itself and makes SGD steps with Nesterov momentum and label smoothing. fer_jax's is
the train command's feed and program. PyTorch's `batched` has the images on the device and warps a batch at a time by
grid_sample (eagerly, and with channels last; with --compile through torch.compile too); `DataLoader` warps each image
by Pillow in as many workers as there are cores, as the field's scripts do. The ratio is to the fastest by median.
First the same maps are given to both: warped images have to agree, and first losses of images that are not augmented.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import machine
import numpy as np
import pairs
import torch
from PIL import Image
from torch_networks import build, draw

from fer_jax.data.augment import Augmentation, affine_warp, random_affine
from fer_jax.data.dataset import Split
from fer_jax.data.feed import ResidentFeed
from fer_jax.data.preprocess import Preprocessing
from fer_jax.models import create_model
from fer_jax.training import classify
from fer_jax.training.dispatch import make_advance, steps_per_dispatch
from fer_jax.training.mesh import make_placement
from fer_jax.training.optimizer import OptimizerOptions, make_optimizer

_STORED, _SIDE, _CLASSES, _RATE, _SMOOTHING = 48, 40, 7, 1e-3, 0.1
_HOW = Augmentation(flip=True, rotate=8.0, shift=0.03, zoom=0.1)
_PREPROCESSING = Preprocessing(_STORED, 1, _SIDE, 'image')


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the flags and prints the table; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--networks', default='shallow_cnn,wider_cnn,resnet18')
    parser.add_argument('--images', type=int, default=2048, help='of an epoch; FER2013 has 28,709')
    parser.add_argument('--batch', type=int, default=128)
    machine.add_flags(parser)
    flags = parser.parse_args(argv)
    device, rate, names = machine.begin(flags)
    _compare_warps()
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (flags.images, _STORED, _STORED, 1)).astype(np.uint8)
    labels = random.integers(0, _CLASSES, flags.images).astype(np.int32)
    names.append('DataLoader')
    print(f'| network | epoch of {flags.images:,}, s | images/s | {" | ".join(names)} | ratio to the fastest |')
    print('| --- | ---: | ---: |' + ' ---: |' * (len(names) + 1))
    for name in flags.networks.split(','):
        machine.attempt(name, lambda n=name: print(_row(n, names, images, labels, device, flags), flush=True))
    print(f'\nload {os.getloadavg()[0]:.1f} at the end')


def _row(name: str, variants: Sequence[str], images: np.ndarray, labels: np.ndarray, device: str, flags) -> str:
    variables = jax.tree.map(jnp.asarray, draw(create_model(name, _CLASSES, dropout=0.0), _SIDE, 1))
    runs = {'fer_jax': _Ours(name, variables, images, labels, flags)}
    for variant in variants:
        runs[variant] = _Theirs(name, variables, images, labels, variant, device, flags)
    expected = runs['fer_jax'].first_loss()
    for who, run in runs.items():
        if not math.isclose(run.first_loss(), expected, rel_tol=1e-3 if flags.dtype == 'float32' else 5e-2):
            raise ValueError(f"the first loss of {who} is {run.first_loss()}, fer_jax's {expected}")
        run.epochs(1)
    counted = len(labels) // flags.batch * flags.batch
    rates = pairs.measure({who: run.epochs for who, run in runs.items()}, counted, flags.seconds, flags.pairs)
    ours = rates.median('fer_jax')
    cells = ' | '.join(f'{rates.median(who):,.0f}' for who in runs)
    return f'| {name} | {counted / ours:.2f} | {cells} | {rates.ratio("fer_jax", rates.fastest(variants))} |'


def _compare_warps() -> None:
    """The same maps of the same images by both."""
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (64, _STORED, _STORED, 1)).astype(np.uint8)
    maps = random_affine(jax.random.key(0), len(images), (_STORED,) * 2, (_SIDE,) * 2, _HOW)
    ours = affine_warp(images, maps, (_SIDE, _SIDE))
    theirs = _warp(torch.tensor(images.transpose(0, 3, 1, 2)), torch.tensor(np.array(maps)))
    np.testing.assert_allclose(theirs.numpy().transpose(0, 2, 3, 1), ours, atol=0.05)
    by_one = np.stack([_warp_one(image[..., 0], one) for image, one in zip(images, np.array(maps), strict=True)])
    if np.mean(abs(by_one - np.array(ours[..., 0])) <= 1) < 0.9:  # but at the edges
        raise ValueError("Pillow's warped images are others")


class _Ours:
    """Our epochs."""

    def __init__(self, name, variables, images, labels, flags):
        options = OptimizerOptions('sgd', _RATE, momentum=0.9, nesterov=True)
        model = create_model(name, _CLASSES, flags.dtype, dropout=0.0)
        make = partial(
            classify.Task, model, make_optimizer(options, lambda _: _RATE), _PREPROCESSING, label_smoothing=_SMOOTHING
        )
        task, self._plain = make(augmentation=_HOW), make(augmentation=Augmentation())
        state = classify.init_state(task, jax.random.key(0))
        state = state.replace(variables=variables, optimizer=task.optimizer.init(variables['params']))
        placement = make_placement(flags.batch, jax.devices()[:1])
        dispatch = steps_per_dispatch(0, jax.default_backend(), flags.batch * _STORED**2)
        split = Split(images, labels, *[np.arange(len(labels)).astype(str)] * 2)
        feed = ResidentFeed(split, 0, flags.batch, dispatch, everywhere=placement.replicated, cut=placement.split(1))
        self._advance = make_advance(partial(classify.train_step, task), feed, placement, 0, dispatch)
        self._first = {'images': _middle(images[: flags.batch]), 'labels': labels[: flags.batch]}
        self._state, self._step = placement.everywhere(state), 0
        self._steps, self._dispatch = len(labels) // flags.batch, dispatch

    def first_loss(self) -> float:
        """Of images that are cut from the middle."""
        step = jax.jit(partial(classify.train_step, self._plain))
        return float(step(self._state, self._first, jax.random.key(0))[1]['loss'])

    def epochs(self, count: int) -> None:
        """Trains for so many."""
        end = self._step + count * self._steps
        while self._step < end:
            now = min(self._dispatch, end - self._step)
            self._state, told = self._advance(self._state, self._step, now)
            self._step += now
        jax.block_until_ready(self._state)


class _Theirs:
    """PyTorch's."""

    def __init__(self, name, variables, images, labels, variant, device, flags):
        self._layout = torch.channels_last if variant == 'channels last' else torch.contiguous_format
        network, _ = build(name, jax.device_get(variables))
        self._network = network.to(device).train().to(memory_format=self._layout)
        self._dtype = torch.bfloat16 if flags.dtype == 'bfloat16' else None
        self._optimizer = torch.optim.SGD(self._network.parameters(), _RATE, momentum=0.9, nesterov=True)
        self._device, self._batch = device, flags.batch
        self._images = torch.tensor(images.transpose(0, 3, 1, 2)).to(device)
        self._labels = torch.tensor(labels).long().to(device)
        self._first = torch.tensor(_middle(images[: flags.batch]).transpose(0, 3, 1, 2)).to(device)
        if variant == 'compiled':
            self._measure, self._warp = torch.compile(self._measure), torch.compile(self._warp)
        self._loader = None
        if variant == 'DataLoader':
            workers = len(os.sched_getaffinity(0))
            self._loader = torch.utils.data.DataLoader(
                _Pictures(images[..., 0], labels),
                flags.batch,
                shuffle=True,
                drop_last=True,
                num_workers=workers,
                multiprocessing_context='spawn',  # JAX's threads do not survive a fork
                persistent_workers=True,
                pin_memory=device == 'cuda',
            )

    def first_loss(self) -> float:
        """Of images that are cut from the middle."""
        with torch.no_grad():
            return float(self._measure(self._first.float(), self._labels[: self._batch]))

    def epochs(self, count: int) -> None:
        """Trains for so many."""
        for _ in range(count):
            for images, labels in self._loader or self._batches():
                self._optimizer.zero_grad(set_to_none=True)
                self._measure(images.to(self._device), labels.to(self._device)).backward()
                self._optimizer.step()
        machine.wait()

    def _batches(self):
        order = torch.randperm(len(self._labels), device=self._device)
        for rows in order[: len(order) // self._batch * self._batch].split(self._batch):
            yield self._warp(self._images[rows]), self._labels[rows]

    def _warp(self, images):
        return _warp(images, _maps(len(images), self._device))

    def _measure(self, images, labels):
        deviation, mean = torch.std_mean(images, (1, 2, 3), correction=0, keepdim=True)
        inputs = ((images - mean) / deviation.clamp(min=8)).contiguous(memory_format=self._layout)
        with torch.autocast(self._device, self._dtype, enabled=self._dtype is not None):
            logits = self._network(inputs)
        return torch.nn.functional.cross_entropy(logits.float(), labels, label_smoothing=_SMOOTHING)


class _Pictures(torch.utils.data.Dataset):
    """Images, each warped by Pillow when it is asked for."""

    def __init__(self, images, labels):
        self._images, self._labels = images, labels.astype(np.int64)

    def __len__(self):
        return len(self._labels)

    def __getitem__(self, index):
        (map_23,) = _maps(1, 'cpu').numpy()
        return torch.from_numpy(_warp_one(self._images[index], map_23).astype(np.float32)[None]), self._labels[index]


def _maps(count: int, device: str) -> torch.Tensor:
    """As `random_affine` draws them for `_HOW`: float32 [N, 2, 3]."""
    u = 2 * torch.rand(6, count, device=device) - 1
    angle, zoom = math.radians(_HOW.rotate) * u[0], 1 / (1 + _HOW.zoom * u[1])
    flip = torch.where(u[2] > 0, -1.0, 1.0)
    y, x = (_HOW.shift * _STORED * u[3], _HOW.shift * _STORED * u[4])
    cos, sin = zoom * torch.cos(angle), zoom * torch.sin(angle)
    rows = [cos, -sin * flip, y, sin, cos * flip, x]
    free = (_STORED - _SIDE) / 2 * (2 * torch.rand(2, count, device=device) - 1)
    rows[2], rows[5] = y + free[0], x + free[1]
    return torch.stack(rows, -1).reshape(count, 2, 3)


def _warp(images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Bilinear, edge pixels repeated outside: float32 [N, C, 40, 40]."""
    turned = torch.cat([maps[:, :, :2].flip(1, 2) * _SIDE, maps[:, :, 2:].flip(1) * 2], 2)  # x before y
    theta = turned / _STORED
    grid = torch.nn.functional.affine_grid(theta, (*images.shape[:2], _SIDE, _SIDE), align_corners=False)
    return torch.nn.functional.grid_sample(images.float(), grid, padding_mode='border', align_corners=False)


def _warp_one(image: np.ndarray, map_23: np.ndarray) -> np.ndarray:
    """The same of one grey image by Pillow, black outside and in whole numbers."""
    turned = map_23[::-1, [1, 0]]  # Pillow has x before y, and counts from the corner
    offset = map_23[::-1, 2] + _STORED / 2 - turned @ np.array([_SIDE / 2, _SIDE / 2])
    words = (*turned[0], offset[0], *turned[1], offset[1])
    how = (Image.Transform.AFFINE, words, Image.Resampling.BILINEAR)
    return np.asarray(Image.fromarray(image).transform((_SIDE, _SIDE), *how))


def _middle(images: np.ndarray) -> np.ndarray:
    edge = (_STORED - _SIDE) // 2
    return images[:, edge : edge + _SIDE, edge : edge + _SIDE]


if __name__ == '__main__':
    main()
