"""What goes between devices in a training step, counted in the compiled program, and the arithmetic for many GPUs.

    python benchmarks/scaling.py [--networks=resnet18,vgg19] [--counts=counts.json] [--picture=scaling.png]

Compiles the training step of each configuration for 8 fake CPU devices, with BatchNorm over the whole batch and over
one group per device, and reads from the program what its collectives carry; operations are counted by XLA in the
program before it is cut. That is counted. All times are arithmetic from the assumptions that are printed with them.
Compiling takes minutes; --counts keeps what was counted, and a later call goes on from it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
from collections.abc import Mapping, Sequence

# The machine code, which never runs, need not be good.
_FLAGS = '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0'
os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {_FLAGS}'.strip()
os.environ['JAX_PLATFORMS'] = 'cpu'

NETWORKS = {  # name to configuration
    'shallow_cnn': 'configs/fer2013/shallow_cnn.py',
    'wider_cnn': 'configs/fer2013/wider_cnn.py',
    'resnet18': 'configs/fer2013/resnet18.py',
    'resnet34': 'configs/fer2013/resnet34.py',
    'vgg19': 'configs/fer2013/vgg19.py',
}
SIDE, CLASSES = 48, 7  # FER2013's, grey
DEVICES = (8, 64, 512)
TRAINING_IMAGES = 28_709

# Assumptions, until measured on GPUs.
RATES = {'shallow_cnn': 5e12, 'wider_cnn': 10e12}  # FLOP/s that a GPU sustains in the step
RATE = 50e12  # of the others: a tenth of an H100's 495 TFLOP/s in TF32 (data sheet, dense)
NVLINK = 450e9 * 0.75  # bytes/s one way: an H100's 900 GB/s counts both ways; three quarters are reached
FABRIC = 50e9 * 0.75  # bytes/s one way: one 400 Gb/s port per node of eight GPUs; three quarters are reached
IN_NODE, HOP_IN_NODE, HOP_BETWEEN = 8, 3e-6, 6e-6  # GPUs; seconds per hop of a tree
SIZES = {1: 'u8 s8 pred', 2: 'bf16 f16 u16 s16', 4: 'f32 s32 u32', 8: 'f64 s64 u64'}
_BYTES = {name: size for size, names in SIZES.items() for name in names.split()}
_COLLECTIVE = re.compile(
    r'= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\((?!.*-done)'
)


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the flags, counts and prints; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--networks', default=','.join(NETWORKS), help=f'of {", ".join(NETWORKS)}')
    parser.add_argument('--counts', default='', help='JSON file of what is counted already; it is written too')
    parser.add_argument('--picture', default='', help='where the picture goes (PNG)')
    flags = parser.parse_args(argv)
    counts = {}
    if flags.counts and os.path.exists(flags.counts):
        with open(flags.counts) as file:
            counts = json.load(file)
    for name in flags.networks.split(','):
        if name not in counts:
            counts[name] = count_network(NETWORKS[name])
            if flags.counts:
                with open(flags.counts, 'w') as file:
                    json.dump(counts, file, indent=2)
    counts = {name: counts[name] for name in flags.networks.split(',')}
    print_counts(counts)
    print_times(counts)
    print_batches(counts)
    print_feeds(counts)
    if flags.picture:
        draw(counts, flags.picture)


def count_network(path: str) -> dict:
    """Operations and collectives of a configuration's step; without BatchNorm the norm's part is left out."""
    from fer_jax.config import load_config

    config = load_config(path)
    few, many = (count_flops(make_step(config, batch, 1)) for batch in (16, 32))
    norms = [1, 8] if hasattr(make_task(config, 1).model, 'norm_groups') else [1]
    found = {'optimizer': config.optimizer.name, 'flops_per_image': (many - few) / 16, 'flops_per_step': 2 * few - many}
    for groups in norms:
        text = make_step(config, 16, groups).compile().as_text()
        found['global' if groups == 1 else 'grouped'] = count_collectives(text)
    return found


def make_task(config, groups: int):
    """The configuration's own task on grey faces of FER2013's size."""
    import optax

    from fer_jax import experiment
    from fer_jax.data.preprocess import Preprocessing
    from fer_jax.training import classify
    from fer_jax.training.optimizer import OptimizerOptions, make_optimizer

    model = experiment.make_model(config, CLASSES)
    if hasattr(model, 'norm_groups'):
        model = model.clone(norm_groups=groups)
    if hasattr(model, 'blocked'):  # blocks are for a CPU; they compute zeros that are no work of the network
        model = model.clone(blocked=False)
    optimizer = make_optimizer(OptimizerOptions(**config.optimizer), optax.constant_schedule(1e-3))
    names = ('label_smoothing', 'mixup', 'cutmix', 'ema')
    return classify.Task(
        model=model,
        optimizer=optimizer,
        preprocessing=Preprocessing(SIDE, 1, crop=config.data.crop, normalize=config.data.normalize),
        augmentation=experiment.make_augmentation(config),
        **{name: config.train[name] for name in names},
    )


def make_step(config, batch: int, groups: int):
    """The training step, lowered for 8 devices that share a batch; nothing is computed."""
    import functools

    import jax
    import jax.numpy as jnp

    from fer_jax.training import classify
    from fer_jax.training.mesh import make_placement

    task, placement = make_task(config, groups), make_placement(batch)
    state = jax.eval_shape(functools.partial(classify.init_state, task), jax.random.key(0))
    images = jax.ShapeDtypeStruct((batch, SIDE, SIDE, 1), jnp.uint8)
    batches = {'images': images, 'labels': jax.ShapeDtypeStruct((batch,), jnp.int32)}
    places = (placement.replicated, placement.split(0), placement.replicated)
    step = jax.jit(
        lambda state, batch, seed: classify.train_step(task, state, batch, jax.random.key(seed)),
        in_shardings=places,
        out_shardings=placement.replicated,
        donate_argnums=0,
    )
    return step.lower(state, batches, jax.ShapeDtypeStruct((), jnp.uint32))


def count_flops(lowered) -> float:
    """Of all devices together, as XLA counts them before the program is cut."""
    return lowered.cost_analysis()['flops']


def count_collectives(text: str) -> dict[str, list[int]]:
    """Per kind of collective: how many are in a compiled program, and the bytes that they give on each device."""
    found: dict[str, list[int]] = {}
    for line in text.splitlines():
        match = _COLLECTIVE.search(line)
        if match:
            shapes = re.findall(r'(\w+)\[([\d,]*)\]', match[1])
            size = sum(_BYTES[kind] * math.prod(int(n) for n in dims.split(',') if n) for kind, dims in shapes)
            number, total = found.get(match[2], (0, 0))
            found[match[2]] = [number + 1, total + size]
    return found


def reduce_seconds(number: float, size: float, devices: int) -> float:
    """Of `number` all-reduces of `size` bytes in all: hops up and down a tree each, and the bytes as in a ring."""
    if devices == 1:
        return 0.0
    nodes = max(1, devices // IN_NODE)
    hops = 2 * math.log2(min(devices, IN_NODE)) * HOP_IN_NODE + 2 * math.log2(nodes) * HOP_BETWEEN
    bandwidth = NVLINK if nodes == 1 else FABRIC
    return number * hops + 2 * (devices - 1) / devices * size / bandwidth


def compute_seconds(name: str, counted: Mapping, batch: float) -> float:
    """Of one device's work on its part of the batch, and the optimiser's, which every device does whole."""
    return (counted['flops_per_image'] * batch + counted['flops_per_step']) / RATES.get(name, RATE)


def efficiency(name: str, counted: Mapping, norm: str, batch: float, devices: int) -> float:
    """Images per second and GPU, as a share of one GPU's with the same images on each; nothing is hidden."""
    work = compute_seconds(name, counted, batch)
    return work / (work + reduce_seconds(*counted[norm]['all-reduce'], devices))


def least_batch(name: str, counted: Mapping, norm: str, devices: int, wanted: float = 0.9) -> int:
    """Images on each GPU from which on the efficiency is at least so much."""
    sent = reduce_seconds(*counted[norm]['all-reduce'], devices)
    flops = sent * wanted / (1 - wanted) * RATES.get(name, RATE) - counted['flops_per_step']
    return max(1, math.ceil(flops / counted['flops_per_image']))


def each(counts: Mapping[str, Mapping]):
    """Network, counts and norm, row by row."""
    for name, counted in counts.items():
        for norm in ('global', 'grouped'):
            if norm in counted:
                yield name, counted, norm, 'none' if 'grouped' not in counted else norm


def print_counts(counts: Mapping[str, Mapping]) -> None:
    """Counted in the program."""
    print('| network | BatchNorm | all-reduces | MB all-reduced | other collectives | MFLOP an image | MFLOP a step |')
    print('| --- | --- | ---: | ---: | --- | ---: | ---: |')
    for name, counted, norm, words in each(counts):
        number, size = counted[norm]['all-reduce']
        others = [f'{n} {kind} ({b / 1e3:.1f} kB)' for kind, (n, b) in counted[norm].items() if kind != 'all-reduce']
        flops = f'{counted["flops_per_image"] / 1e6:,.0f} | {counted["flops_per_step"] / 1e6:,.0f}'
        print(f'| `{name}` | {words} | {number} | {size / 1e6:.3f} | {", ".join(others) or "none"} | {flops} |')


def print_times(counts: Mapping[str, Mapping], batch: int = 64) -> None:
    """Arithmetic: one batch size, all numbers of devices."""
    print(
        f'\n| network, {batch} images a GPU | BatchNorm | work, ms | ' + ' | '.join(f'{n} GPUs' for n in DEVICES) + ' |'
    )
    print('| --- | --- | ---: |' + ' ---: |' * len(DEVICES))
    for name, counted, norm, words in each(counts):
        work = compute_seconds(name, counted, batch) * 1e3
        cells = []
        for devices in DEVICES:
            sent = reduce_seconds(*counted[norm]['all-reduce'], devices) * 1e3
            cells.append(f'+ {sent:.2f} ms, {efficiency(name, counted, norm, batch, devices):.0%}')
        print(f'| `{name}` | {words} | {work:.2f} | {" | ".join(cells)} |')


def print_batches(counts: Mapping[str, Mapping]) -> None:
    """Arithmetic: images a GPU, and in the whole batch, from which on nine tenths are kept."""
    print('\n| network | BatchNorm | ' + ' | '.join(f'{n} GPUs' for n in DEVICES) + ' |')
    print('| --- | --- |' + ' ---: |' * len(DEVICES))
    for name, counted, norm, words in each(counts):
        least = [least_batch(name, counted, norm, devices) for devices in DEVICES]
        cells = [f'{on_each:,} ({on_each * n:,})' for on_each, n in zip(least, DEVICES, strict=True)]
        print(f'| `{name}` | {words} | {" | ".join(cells)} |')


def print_feeds(counts: Mapping[str, Mapping], batch: int = 64) -> None:
    """Arithmetic: what the host's cores have to decode for one GPU, and what the exchange of rows adds to a step."""
    print(f'\n| network, {batch} images a GPU | images/s a GPU | in a node of {IN_NODE} |')
    print('| --- | ---: | ---: |')
    for name, counted in counts.items():
        rate = batch / compute_seconds(name, counted, batch)
        print(f'| `{name}` | {rate:,.0f} | {rate * IN_NODE:,.0f} |')
    print('\n| sharded feed, image | ' + ' | '.join(f'{n} GPUs' for n in DEVICES) + ' |')
    print('| --- |' + ' ---: |' * len(DEVICES))
    for words, size in (('48 px, grey', 48 * 48), ('112 px, RGB', 112 * 112 * 3), ('224 px, RGB', 224 * 224 * 3)):
        cells = []
        for devices in DEVICES:
            sent = batch * (devices - 1) * size
            seconds = sent / (NVLINK if devices <= IN_NODE else FABRIC)
            cells.append(f'{sent / 1e6:,.1f} MB, {seconds * 1e3:.2f} ms')
        print(f'| {words} | {" | ".join(cells)} |')


def draw(counts: Mapping[str, Mapping], path: str) -> None:
    """Efficiency against the images on each GPU, one panel per network."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(counts), figsize=(3.1 * len(counts), 3.6), sharey=True, squeeze=False)
    batches = [2 ** (step / 4) for step in range(41)]
    colours = dict(zip(DEVICES, ('#1b7837', '#2166ac', '#b2182b'), strict=True))
    for panel, (name, counted) in zip(panels[0], counts.items(), strict=True):
        for norm, style in (('global', '-'), ('grouped', '--')):
            for devices in DEVICES if norm in counted else ():
                shares = [efficiency(name, counted, norm, batch, devices) for batch in batches]
                words = f'{devices} GPUs' + (', grouped norm' if norm == 'grouped' else '')
                panel.plot(batches, shares, style, color=colours[devices], label=words)
        panel.axhline(0.9, color='0.6', linewidth=0.8)
        panel.set(xscale='log', title=name, xlabel='images on each GPU', ylim=(0, 1.02), xlim=(1, 1024))
        panel.set_xscale('log', base=2)
        panel.set_xticks([1, 8, 64, 512], ['1', '8', '64', '512'])
    panels[0][0].set_ylabel('efficiency (arithmetic)')
    panels[0][0].set_yticks([0, 0.25, 0.5, 0.75, 0.9, 1], ['0', '25 %', '50 %', '75 %', '90 %', '100 %'])
    last = panels[0][-1].get_legend_handles_labels()
    figure.legend(*last, loc='lower center', ncols=6, frameon=False)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.savefig(path, dpi=110)


if __name__ == '__main__':
    main()
