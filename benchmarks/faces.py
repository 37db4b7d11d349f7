"""Time of face detection and alignment, and how many faces of a data set are found.

    python benchmarks/faces.py [--data=data/fer2013] [--count=2000] [--repeats=3]

Times are the best of `repeats` when all is compiled: wall time, and beside it the processor time of all threads,
which says on a busy machine what a quiet one would need. Pictures are scikit-image's astronaut (one face) in a textured
surrounding; with --data, also `count` images drawn at random from its training part (seed 0).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
import skimage.data
from PIL import Image

from fer_jax.data.stored import load_prepared
from fer_jax.faces.align import make_aligner
from fer_jax.faces.mtcnn import Mtcnn, Settings
from fer_jax.faces.portraits import FIRST, PortraitMtcnn
from fer_jax.runtime import configure


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the flags and prints the tables; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', default='', help='a prepared data set of faces')
    parser.add_argument('--count', type=int, default=2000, help='how many of its training images')
    parser.add_argument('--repeats', type=int, default=3)
    flags = parser.parse_args(argv)
    configure()
    device = jax.devices()[0].device_kind
    print(f'{device}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start; best of {flags.repeats}\n')
    _photographs(flags.repeats)
    _portraits(flags.repeats)
    if flags.data:
        _found(flags.data, flags.count)


def _photographs(repeats: int) -> None:
    detector = Mtcnn()
    detector.warm_up()
    print('| photographs | faces found | ms each | processor ms each |')
    print('| --- | ---: | ---: | ---: |')
    for width, height in ((320, 240), (640, 480), (1280, 720), (1920, 1080)):
        picture = _scene(width, height)
        for smallest in (20, 40):
            settings = Settings(min_face=smallest)
            faces, wall, processor = _best(lambda p=picture, s=settings: detector.detect([p], s), repeats)
            name = f'{width}x{height}, faces from {smallest} px on'
            print(f'| {name} | {len(faces[0])} | {1000 * wall:.0f} | {1000 * processor:.0f} |', flush=True)


def _portraits(repeats: int, count: int = 256) -> None:
    face = Image.fromarray(skimage.data.astronaut()[40:190, 150:300])
    pictures = [np.asarray(face.rotate(angle).resize((48, 48)).convert('L')) for angle in np.linspace(-30, 30, count)]
    aligner = make_aligner(size=48)
    aligner(pictures[:8])
    faces, wall, processor = _best(lambda: aligner(pictures), repeats)
    print(f'\n{count} pictures of 48 px found and aligned: {sum(face.found for face in faces)} found, ', end='')
    print(f'{count / wall:.0f} a second ({count / processor:.0f} a second of processor time)')


def _found(data: str, count: int) -> None:
    images = load_prepared(data, lazy=True).splits['train'].images
    chosen = np.sort(np.random.default_rng(0).choice(len(images), min(count, len(images)), replace=False))
    pictures = list(images[chosen])
    print(f'\n| {len(pictures)} of {data} | found | a second | a second of processor time |')
    print('| --- | ---: | ---: | ---: |')
    mtcnn, portraits = Mtcnn(), PortraitMtcnn()
    for name, detect in (
        ("photographs' settings", mtcnn.detect),
        ("portraits' first look", lambda pictures: mtcnn.detect(pictures, FIRST)),
        ('portraits, all looks', portraits.detect),
    ):
        faces, wall, processor = _best(lambda detect=detect: detect(pictures), 1)
        found, number = sum(map(bool, faces)), len(pictures)
        print(f'| {name} | {found} | {number / wall:.0f} | {number / processor:.0f} |', flush=True)


def _scene(width: int, height: int) -> np.ndarray:
    """The astronaut on a wall of bricks, as high as the picture."""
    wall = Image.fromarray(skimage.data.brick()).convert('RGB').resize((width, height))
    wall.paste(Image.fromarray(skimage.data.astronaut()).resize((height, height)), ((width - height) // 2, 0))
    return np.asarray(wall)


def _best(work: Callable[[], list], repeats: int) -> tuple[list, float, float]:
    """What the work gives, and the least wall and processor time it took, in seconds."""
    times = []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        result = work()
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    return result, *map(min, zip(*times, strict=True))


if __name__ == '__main__':
    main()
