"""CycleGAN in PyTorch, out of our parameters: what tests compare with, and benchmarks run beside.

Networks, losses and pool are those of the authors' code (junyanz, pytorch-CycleGAN-and-pix2pix).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import torch

from fer_jax.training.cyclegan import State, Task, init_state

_WAYS = {'a_to_b': ('a', 'b'), 'b_to_a': ('b', 'a')}


def draw(model, shape, seed=0):
    """Parameters of ordinary size, by numpy, which compiles nothing."""
    random = np.random.default_rng(seed)

    def array(leaf):
        return (random.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))).astype(np.float32)

    return jax.tree.map(array, jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))['params'])


def draw_state(task: Task) -> State:
    """A state whose parameters are of ordinary size, so that every gradient counts; no two of its arrays are one."""
    state = jax.eval_shape(functools.partial(init_state, task), jax.random.key(0))
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state)
    shape = (1, task.size, task.size, task.channels)
    generators = {name: draw(task.generator, shape, seed) for seed, name in enumerate(state.generators)}
    critics = {name: draw(task.discriminator, shape, 5 + seed) for seed, name in enumerate(state.discriminators)}
    state = state.replace(
        generators=jax.tree.map(jnp.array, generators), discriminators=jax.tree.map(jnp.array, critics)
    )
    return state.replace(average=jax.tree.map(jnp.array, generators)) if task.ema else state


def fill(network, parameters):
    """Gives a network our parameters, in the order of its layers."""
    layers = [layer for layer in network.modules() if isinstance(layer, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))]
    for layer, ours in zip(layers, parameters, strict=True):
        order = (2, 3, 0, 1) if isinstance(layer, torch.nn.ConvTranspose2d) else (3, 2, 0, 1)
        weight = torch.tensor(np.array(ours['kernel']).transpose(order).copy())
        assert layer.weight.shape == weight.shape
        layer.weight.data, layer.bias.data = weight, torch.tensor(np.array(ours['bias']))
    return network


class Residual(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        part = lambda: [torch.nn.ReflectionPad2d(1), torch.nn.Conv2d(width, width, 3), torch.nn.InstanceNorm2d(width)]
        self.body = torch.nn.Sequential(*part(), torch.nn.ReLU(), *part())

    def forward(self, x):
        return x + self.body(x)


def generator(params, channels, width, blocks):
    nn = torch.nn
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(channels, width, 7), nn.InstanceNorm2d(width), nn.ReLU()]
    for i in (width, 2 * width):
        layers += [nn.Conv2d(i, 2 * i, 3, stride=2, padding=1), nn.InstanceNorm2d(2 * i), nn.ReLU()]
    layers += [Residual(4 * width) for _ in range(blocks)]
    for i in (4 * width, 2 * width):
        layers += [nn.ConvTranspose2d(i, i // 2, 3, stride=2, padding=1, output_padding=1)]
        layers += [nn.InstanceNorm2d(i // 2), nn.ReLU()]
    layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, channels, 7), nn.Tanh()]
    inner = [params[f'ResidualBlock_{block}'][f'Conv_{place}'] for block in range(blocks) for place in (0, 1)]
    outer = [params[f'Conv_{index}'] for index in range(3)], [params['Upsample_0'], params['Upsample_1']]
    return fill(nn.Sequential(*layers), [*outer[0], *inner, *outer[1], params['Conv_3']])


def discriminator(params, channels, widths):
    nn = torch.nn
    layers, before = [], channels
    for place, width in enumerate(widths):
        layers += [nn.Conv2d(before, width, 4, stride=1 if place == len(widths) - 1 else 2, padding=1)]
        layers += [nn.InstanceNorm2d(width)] if place else []
        layers += [nn.LeakyReLU(0.2)]
        before = width
    layers += [nn.Conv2d(before, 1, 4, padding=1)]
    return fill(nn.Sequential(*layers), [params[f'Conv_{index}'] for index in range(len(widths) + 1)])


class Pair:
    """The training of a pair.

    Args:
        task: its networks' sizes and its losses' weights, pool and average are taken.
        state: its parameters are.
        optimizer: makes one for some parameters.
        convert: of each network: type of its numbers, device, layout.
        together: share batches where our step does: a generator's translations and identities, a discriminator's real
            images and the pool's. The authors' code runs them apart.
        precision: of autocast; None for none.
        wrap: of each network, such as torch.compile.
    """

    def __init__(
        self,
        task: Task,
        state: State,
        optimizer: Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer],
        convert: Callable[[torch.nn.Module], torch.nn.Module] = lambda network: network,
        *,
        together: bool = False,
        precision: torch.dtype | None = None,
        wrap: Callable[[torch.nn.Module], Callable] = lambda network: network,
    ):
        made, critic = task.generator, task.discriminator
        make = lambda params: convert(generator(params, made.channels, made.width, made.blocks))
        self.generators = {name: make(params) for name, params in state.generators.items()}
        make = lambda params: convert(discriminator(params, made.channels, critic.channels))
        self.critics = {name: make(params) for name, params in state.discriminators.items()}
        self._trained, self._judging = (
            [parameter for network in networks.values() for parameter in network.parameters()]
            for networks in (self.generators, self.critics)
        )
        self._optimizers = optimizer(self._trained), optimizer(self._judging)
        self._translate, self._judge = (
            {name: wrap(network) for name, network in networks.items()} for networks in (self.generators, self.critics)
        )
        self._average = [parameter.detach().clone() for parameter in self._trained] if task.ema else None
        self._task, self._together, self._precision, self._steps = task, together, precision, 0
        self.pools: dict[str, list[torch.Tensor]] = {'a': [], 'b': []}

    def step(
        self, real: dict[str, torch.Tensor], swaps: Sequence[bool], places: Sequence[int]
    ) -> dict[str, torch.Tensor]:
        """One step of all four; the metrics of ours.

        Args:
            real: images [B, C, H, W] of both domains, from -1 to 1.
            swaps, places: the pool's coins, for both domains alike.
        """
        for parameter in self._judging:
            parameter.requires_grad_(False)
        total, parts, made = self._generator_loss(real)
        self._descend(0, total)
        for parameter in self._judging:
            parameter.requires_grad_(True)
        shown = {domain: self._query(domain, made[domain].detach(), swaps, places) for domain in 'ab'}
        more, more_parts, right = self._critic_loss(real, shown)
        self._descend(1, more)
        self._follow()
        found = {'loss': total + more, 'judged_rightly': right} | parts | more_parts
        return {name: value.detach() for name, value in found.items()}

    def _run(self, network, *images):
        """One pass for all images, or one for each."""
        batches = [torch.cat(images)] if self._together else images
        device = images[0].device.type
        with torch.autocast(device, self._precision, enabled=self._precision is not None):
            answers = [network(batch).to(batch.dtype) for batch in batches]
        return answers[0].split([len(batch) for batch in images]) if self._together else answers

    def _generator_loss(self, real):
        l1, task = torch.nn.functional.l1_loss, self._task
        parts, made, total = {}, {}, 0.0
        for way, (source, target) in _WAYS.items():
            if not task.identity:
                (made[target],) = self._run(self._translate[way], real[source])
                continue
            made[target], same = self._run(self._translate[way], real[source], real[target])
            parts[f'identity_{target}'] = l1(same, real[target])
            total = total + task.cycle * task.identity * parts[f'identity_{target}']
        for (way, (source, target)), back in zip(_WAYS.items(), ('b_to_a', 'a_to_b'), strict=True):
            (scores,) = self._run(self._judge[target], made[target])
            (again,) = self._run(self._translate[back], made[target])
            parts[f'adversarial_{way}'] = ((scores - 1) ** 2).mean()
            parts[f'cycle_{source}'] = l1(again, real[source])
            total = total + parts[f'adversarial_{way}'] + task.cycle * parts[f'cycle_{source}']
        return total, parts, made

    def _critic_loss(self, real, shown):
        parts, right = {}, 0.0
        for domain in 'ab':
            of_real, of_made = self._run(self._judge[domain], real[domain], shown[domain])
            parts[f'discriminator_{domain}'] = (((of_real - 1) ** 2).mean() + (of_made**2).mean()) / 2
            right = right + ((of_real > 0.5).to(of_real).mean() + (of_made < 0.5).to(of_made).mean()) / 4
        return parts['discriminator_a'] + parts['discriminator_b'], parts, right

    def _descend(self, which, loss):
        self._optimizers[which].zero_grad(set_to_none=True)
        loss.backward()
        self._optimizers[which].step()

    def _follow(self):
        decay = min(self._task.ema, (1 + self._steps) / (10 + self._steps))
        if self._average:
            torch._foreach_lerp_(self._average, [parameter.detach() for parameter in self._trained], 1 - decay)
        self._steps += 1

    def _query(self, domain, images, swaps, places):
        pool, returned = self.pools[domain], []
        for image, swap, place in zip(images, swaps, places, strict=True):
            if len(pool) < self._task.pool:
                pool.append(image)
                returned.append(image)
            elif swap and self._task.pool:
                returned.append(pool[place])
                pool[place] = image
            else:
                returned.append(image)
        return torch.stack(returned)
