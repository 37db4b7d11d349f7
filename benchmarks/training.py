"""Training steps of fer_jax and of PyTorch, the same networks from the same parameters, in turn in one run.

    python benchmarks/training.py [--networks=shallow_cnn,wider_cnn,resnet18] [--pairs=5] [--seconds=4] …

PyTorch runs eagerly, with channels last and, with --compile, through torch.compile; the fastest of them by median is
what the ratio is to. Both take uint8 images, normalise them, and make SGD steps with Nesterov momentum and label
smoothing; first losses are compared, at the start and after three steps. The floor is the step's operations, as XLA
counts them, at the best rate at which either multiplies matrices here.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import machine
import numpy as np
import pairs
import torch
from torch_networks import build, draw

from fer_jax import experiment
from fer_jax.data.preprocess import Preprocessing
from fer_jax.models import create_model
from fer_jax.training import classify
from fer_jax.training.dispatch import key_numbers, make_steps, steps_per_dispatch
from fer_jax.training.optimizer import OptimizerOptions, make_optimizer

# Side, channels, images of a batch.
INPUTS = {
    'shallow_cnn': (48, 1, 128),
    'wider_cnn': (48, 1, 128),
    'resnet10': (48, 1, 128),
    'resnet18': (48, 1, 32),
    'resnet34': (48, 1, 32),
    'vgg19': (48, 1, 32),
    'affectnet_cnn': (64, 3, 64),
    'baseline_cnn': (224, 3, 32),
}
_CLASSES, _RATE, _SMOOTHING = 7, 1e-3, 0.1
_STEPS = 3  # before losses are compared again


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the flags and prints the table; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--networks', default='shallow_cnn,wider_cnn,resnet18', help=', '.join(INPUTS))
    parser.add_argument('--batch', type=int, default=0, help='images of a step, instead of those of each network')
    parser.add_argument('--dispatch', type=int, default=0, help='our steps per program; 0: as the train command')
    machine.add_flags(parser)
    flags = parser.parse_args(argv)
    device, rate, names = machine.begin(flags)
    print(f'| network | images | fer_jax, images/s | {" | ".join(names)} | ratio to the fastest | of the floor |')
    print('| --- | --- | ---: |' + ' ---: |' * (len(names) + 2))
    for name in flags.networks.split(','):
        machine.attempt(name, lambda n=name: print(_row(n, names, rate, device, flags), flush=True))
    print(f'\nload {os.getloadavg()[0]:.1f} at the end')


def _row(name: str, variants: Sequence[str], matrix_rate: float, device: str, flags: argparse.Namespace) -> str:
    side, channels, batch = INPUTS[name]
    batch = flags.batch or batch
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch, side, side, channels)).astype(np.uint8)
    labels = random.integers(0, _CLASSES, batch).astype(np.int32)
    model = create_model(name, _CLASSES, flags.dtype, dropout=0.0)
    variables = jax.tree.map(jnp.asarray, draw(create_model(name, _CLASSES, dropout=0.0), side, channels))
    runs = {'fer_jax': _Ours(model, variables, images, labels, flags.dispatch)}
    for variant in variants:
        runs[variant] = _Theirs(name, variables, images, labels, variant, device, flags.dtype)
    first = {who: (run.steps(1), run.steps(_STEPS)) for who, run in runs.items()}
    tolerance = 1e-3 if flags.dtype == 'float32' else 5e-2
    for who, losses in first.items():
        if not np.allclose(losses, first['fer_jax'], rtol=tolerance):
            raise ValueError(f'losses of {who} are {losses}, of fer_jax {first["fer_jax"]}')
    rates = pairs.measure({who: run.steps for who, run in runs.items()}, batch, flags.seconds, flags.pairs)
    ratio = rates.ratio('fer_jax', rates.fastest(variants))
    flops = experiment.summarize_model(model, _how(side, channels))['train_flops_per_image']
    cells = [f'{rates.median(who):,.0f}' for who in runs]
    share = f'{100 * rates.median("fer_jax") * flops / matrix_rate:.0f} %'
    return f'| {name} | {batch} x {side} px | {" | ".join(cells)} | {ratio} | {share} |'


class _Ours:
    """Our step, as the train command makes it, as many per dispatch as there."""

    def __init__(self, model, variables, images, labels, dispatch):
        side, channels = images.shape[1], images.shape[-1]
        options = OptimizerOptions('sgd', _RATE, momentum=0.9, nesterov=True)
        task = classify.Task(
            model, make_optimizer(options, lambda _: _RATE), _how(side, channels), label_smoothing=_SMOOTHING
        )
        state = classify.init_state(task, jax.random.key(0))
        self._state = state.replace(variables=variables, optimizer=task.optimizer.init(variables['params']))
        self._dispatch = dispatch or steps_per_dispatch(0, jax.default_backend(), images.nbytes)
        steps = make_steps(partial(classify.train_step, task), self._dispatch)
        self._steps = jax.jit(steps, donate_argnums=0)
        batch = {'images': jnp.asarray(images), 'labels': jnp.asarray(labels)}
        # Every step of a dispatch has a batch of its own, as the feed gives them.
        self._batches = jax.tree.map(lambda array: jnp.stack([array] * self._dispatch), batch)

    def steps(self, count: int) -> float:
        """The last of so many steps' losses."""
        told, left = {}, count
        while left:  # the last step is a dispatch of its own, since sums of losses come back
            now = min(self._dispatch, left - 1) or 1
            self._state, told = self._steps(self._state, self._batches, now, key_numbers(0))
            left -= now
        jax.block_until_ready(self._state)
        return float(told['loss'])


class _Theirs:
    """PyTorch's step."""

    def __init__(self, name, variables, images, labels, variant, device, dtype):
        self._device = device
        network, _ = build(name, jax.device_get(variables))
        self._network = network.to(self._device).train()
        self._layout = torch.channels_last if variant == 'channels last' else torch.contiguous_format
        self._network.to(memory_format=self._layout)
        self._dtype = torch.bfloat16 if dtype == 'bfloat16' else None
        self._optimizer = torch.optim.SGD(self._network.parameters(), _RATE, momentum=0.9, nesterov=True)
        self._images = torch.tensor(images.transpose(0, 3, 1, 2)).to(self._device, memory_format=self._layout)
        self._labels = torch.tensor(labels).long().to(self._device)
        self._loss = torch.compile(self._measure) if variant == 'compiled' else self._measure

    def _measure(self, images, labels):
        inputs = ((images.float() - 127.5) / 64.0).contiguous(memory_format=self._layout)
        with torch.autocast(self._device, self._dtype, enabled=self._dtype is not None):
            logits = self._network(inputs)
        return torch.nn.functional.cross_entropy(logits.float(), labels, label_smoothing=_SMOOTHING)

    def steps(self, count: int) -> float:
        """The last of so many steps' losses."""
        for _ in range(count):
            self._optimizer.zero_grad(set_to_none=True)
            loss = self._loss(self._images, self._labels)
            loss.backward()
            self._optimizer.step()
        machine.wait()
        return float(loss.detach())


def _how(side: int, channels: int) -> Preprocessing:
    return Preprocessing(side, channels, 0, 'dataset', 127.5, 64.0)


if __name__ == '__main__':
    main()
