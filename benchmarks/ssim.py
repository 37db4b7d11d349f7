"""Pairs of images per second whose structural similarity is computed by fer_jax and by scikit-image, in one run.

    python benchmarks/ssim.py [--images=2048] [--pairs=5] [--sizes=64,128] …

Draws faces and changed copies of them, compares both answers, then lets both run in turn: fer_jax in batches, from
arrays in the host's memory to numbers there; scikit-image image by image, as it goes. On a GPU a second row has fer_jax
from arrays in its memory to numbers there, as in an audit, which makes its translations on the device. The table has
the median of each and of the ratios of the pairs.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
import skimage
from pairs import cells, in_turn
from skimage.metrics import structural_similarity

from fer_jax.data.dataset import EMOTIONS
from fer_jax.data.synthetic import load_synthetic
from fer_jax.evaluation.ssim import Window, score_images, ssim

WINDOWS = {
    'uniform 7x7': (Window(), {}),
    'Gaussian 1.5': (
        Window('gaussian', use_sample_covariance=False),
        {'gaussian_weights': True, 'sigma': 1.5, 'use_sample_covariance': False},
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the flags and prints the table; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag, default, text in (
        ('faces', 64, 'how many different faces are drawn'),
        ('images', 2048, 'pairs of images that fer_jax compares at a time'),
        ('theirs', 64, 'pairs of images that scikit-image compares at a time'),
        ('values', 2**20, 'pixels times channels in a batch of fer_jax'),
        ('pairs', 5, 'how often both run'),
    ):
        parser.add_argument(f'--{flag}', type=int, default=default, help=text)
    parser.add_argument('--sizes', default='64,128', help='sides of the images in pixels')
    flags = parser.parse_args(argv)
    device = jax.devices()[0]
    print(
        f'{datetime.date.today()}, {platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, '
        f'load {os.getloadavg()[0]:.1f} at the start; jax {jax.__version__} on {device.platform} '
        f'({device.device_kind}), scikit-image {skimage.__version__}; medians of {flags.pairs} pairs\n'
    )
    print('| images | window | from | differ by at most | fer_jax, images/s | scikit-image, images/s | ratio |')
    print('| --- | --- | --- | ---: | ---: | ---: | ---: |')
    for size in map(int, flags.sizes.split(',')):
        for channels in (1, 3):
            images = _draw(size, channels, flags)
            for name, (window, options) in WINDOWS.items():
                what = f'{size} px, {"grey" if channels == 1 else "colour"} | {name}'
                for place, row in _compare(images, window, options, flags).items():
                    print(f'| {what} | {place} | {row} |', flush=True)
    print(f'\nload {os.getloadavg()[0]:.1f} at the end')


def _draw(size: int, channels: int, flags: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Faces, and copies of them that are brighter in places and have some noise, as translations have."""
    drawn = load_synthetic(
        classes=EMOTIONS,
        seed=0,
        num_train=flags.faces,
        num_validation=8,
        num_test=8,
        size=size,
        channels=channels,
    )
    faces = np.resize(drawn.splits['train'].images, (flags.images, size, size, channels))
    random = np.random.default_rng(0)
    light = 40 * np.sin(np.linspace(0, 3, size))[:, None, None]
    changed = faces + light + random.normal(0, 6, faces.shape)
    return faces, changed.clip(0, 255).astype(np.uint8)


def _compare(
    images: tuple[np.ndarray, np.ndarray], window: Window, options: dict, flags: argparse.Namespace
) -> dict[str, str]:
    """The last cells of a row, by where fer_jax finds the images."""
    ids = np.array([f'{index:06d}' for index in range(flags.images)])
    batch_size = max(1, flags.values // images[0][0].size)
    score = lambda first, second: ssim(first, second, window=window)

    def ours() -> list[float]:
        return list(score_images(score, ids, *images, batch_size=batch_size).values())

    def theirs() -> list[float]:
        return [
            structural_similarity(one, other, data_range=255, channel_axis=-1, **options)
            for one, other in zip(*(side[: flags.theirs] for side in images), strict=True)
        ]

    difference = np.abs(np.array(ours()[: flags.theirs]) - theirs()).max()
    if difference > 1e-5:
        raise SystemExit(f'the two give other answers: up to {difference:.1e} apart')
    runs = {'the host': ours}
    if jax.default_backend() != 'cpu':
        there = [
            jax.device_put(tuple(side[i : i + batch_size] for side in images)) for i in range(0, len(ids), batch_size)
        ]
        runs['the device'] = lambda: jax.block_until_ready([score(*batch) for batch in there])
        runs['the device']()
    of_theirs = lambda: _rate(theirs, flags.theirs)
    pairs = {
        place: in_turn(lambda run=run: _rate(run, flags.images), of_theirs, flags.pairs) for place, run in runs.items()
    }
    return {place: f'{difference:.1e} | {cells(found)}' for place, found in pairs.items()}


def _rate(run: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    run()
    return count / (time.perf_counter() - start)


if __name__ == '__main__':
    main()
