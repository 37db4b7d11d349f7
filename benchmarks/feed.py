"""Images per second of the streaming feed and of a PyTorch DataLoader over the same files, and what a step waits.

    python benchmarks/feed.py [--pictures=1024] [--pairs=5] [--batch-size=128] …

Draws faces, stores them as JPEG (224 px, colour) and PNG (48 px, grey), once as files for PyTorch and once prepared for
fer_jax, with the same bytes. First it compares the pixels that both give. Then both run in turn, and the table has
the median of each and of the ratios of the pairs. The DataLoader has as many workers as there are cores, shuffles,
and hands over uint8 batches as the feed does; the feed's are on the device by then. Needs torch.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from pairs import cells, in_turn
from PIL import Image

from fer_jax.runtime import configure

_CORES = len(os.sched_getaffinity(0))
_UNTIMED = 4 + 2 * _CORES  # batches before the clock starts: what either side may have read ahead


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the flags and prints the tables; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag, default, text in (
        ('faces', 128, 'how many different faces are drawn'),
        ('pictures', 1024, 'files, the faces again and again'),
        ('batch-size', 128, ''),
        ('batches', 16, 'timed at a time'),
        ('pairs', 5, 'how often both run'),
        ('train-size', 64, 'side of the pictures in the training step'),
        ('train-batch', 32, 'its batch'),
        ('train-steps', 8, 'its steps, per pair'),
    ):
        parser.add_argument(f'--{flag}', type=int, default=default, help=text)
    parser.add_argument('--blocks', default='1,1', help='of the residual network in the training step')
    flags = parser.parse_args(argv)
    configure()  # as every command of fer_jax does; the DataLoader's workers are processes of their own
    with tempfile.TemporaryDirectory() as folder:
        print(f'{_machine()}; {_CORES} cores, load {os.getloadavg()[0]:.1f} at the start')
        print(f'batches of {flags.batch_size}, {flags.batches} at a time, medians of {flags.pairs} pairs\n')
        jpegs, pngs = (_write_set(Path(folder), kind, flags) for kind in ('jpeg', 'png'))
        print('| pictures | pixels differ by | fer_jax, images/s | PyTorch, images/s | ratio |')
        print('| --- | ---: | ---: | ---: | ---: |')
        for name, (directory, files), size in (
            ('224 px JPEG', jpegs, 224),
            ('224 px JPEG to 64 px', jpegs, 64),
            ('48 px PNG', pngs, 48),
        ):
            print(f'| {name} | {_compare_rates(directory, files, size, flags)} |', flush=True)
        print('\n| training step | resident, images/s | streaming, images/s | ratio | waits for data |')
        print('| --- | ---: | ---: | ---: | ---: |')
        print(f'| {_compare_steps(jpegs[0], flags)} |')
        print(f'\nload {os.getloadavg()[0]:.1f} at the end')


def _machine() -> str:
    import jax

    device = jax.devices()[0]
    return f'jax {jax.__version__} on {device.platform} ({device.device_kind}), torch {torch.__version__}'


def _write_set(folder: Path, kind: str, flags: argparse.Namespace) -> tuple[Path, list[str]]:
    """The prepared directory and the files, which hold the same bytes in the same order."""
    from fer_jax.data.dataset import EMOTIONS, Dataset, Split, pixel_hash
    from fer_jax.data.pixels import decode_stored, encode_png
    from fer_jax.data.prepared import describe, store_prepared
    from fer_jax.data.synthetic import load_synthetic

    size, channels = (224, 3) if kind == 'jpeg' else (48, 1)
    drawn = load_synthetic(
        classes=EMOTIONS,
        seed=0,
        num_train=flags.faces,
        num_validation=8,
        num_test=8,
        size=size,
        channels=channels,
    ).splits['train']
    encoded = [_jpeg(image) if kind == 'jpeg' else encode_png(image) for image in drawn.images]
    hashes = [pixel_hash(decode_stored(data)) for data in encoded]
    rows = np.arange(flags.pictures) % flags.faces
    ids = np.array([f'{row:06d}' for row in range(flags.pictures)])
    split = Split(drawn.images[rows], drawn.labels[rows], ids, np.array(hashes)[rows])
    manifest = describe('faces', EMOTIONS, {'train': split}, (size, size, channels)) | {'source': 'drawn'}
    directory = folder / kind
    directory.mkdir()
    pictures = [encoded[row] for row in rows]
    store_prepared(Dataset('faces', EMOTIONS, {'train': split}, manifest), directory, pictures={'train': pictures})
    files = [folder / f'{kind}-files' / f'{name}.{kind}' for name in ids]
    files[0].parent.mkdir()
    for path, data in zip(files, pictures, strict=True):
        path.write_bytes(data)
    return directory, [os.fspath(path) for path in files]


def _jpeg(image: np.ndarray) -> bytes:
    """With some noise, so that it takes the space and time of a photograph: about 20 KB at 224 pixels."""
    noise = np.random.default_rng(int(image.sum())).normal(0, 6, image.shape)
    file = io.BytesIO()
    Image.fromarray((image + noise).clip(0, 255).astype(np.uint8)).save(file, 'JPEG', quality=90)
    return file.getvalue()


class _Files(torch.utils.data.Dataset):
    """What one writes for PyTorch: open, decode, resize, to a tensor."""

    def __init__(self, files: Sequence[str], size: int):
        self.files, self.size = files, size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.files[index]) as picture:
            if picture.size != (self.size, self.size):
                picture = picture.resize((self.size, self.size), Image.Resampling.LANCZOS)
            pixels = np.array(picture)
        return torch.from_numpy(pixels if pixels.ndim == 3 else pixels[..., None])


def _compare_rates(directory: Path, files: Sequence[str], size: int, flags: argparse.Namespace) -> str:
    from fer_jax.data.stored import load_prepared

    split = load_prepared(directory, size, lazy=True).splits['train']
    theirs = _Files(files, size)
    expected = np.stack([theirs[index].numpy() for index in range(64)])
    difference = np.abs(split.images[:64].astype(int) - expected)
    if difference.mean() > 1.5:
        raise SystemExit(f'the two give other pixels: {difference.mean():.2f} grey levels on average')
    with _our_batches(split, flags.batch_size) as ours, _their_batches(theirs, flags.batch_size) as other:
        pairs = in_turn(lambda: _rate(ours, flags), lambda: _rate(other, flags), flags.pairs)
    same = 'nothing' if not difference.any() else f'{difference.mean():.2f} on average'
    return f'{same} | {cells(pairs)}'


@contextlib.contextmanager
def _our_batches(split, batch_size: int) -> Iterator[Callable[[], None]]:
    import jax

    from fer_jax.data.streaming import StreamingFeed

    steps = iter(range(2**40))
    with contextlib.closing(StreamingFeed(split, 0, batch_size)) as feed:
        yield lambda: jax.block_until_ready(feed.batches(next(steps), 1))


@contextlib.contextmanager
def _their_batches(dataset: _Files, batch_size: int) -> Iterator[Callable[[], None]]:
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=_CORES,
        multiprocessing_context='spawn',  # JAX's threads do not survive a fork
        persistent_workers=True,
    )

    def endless():
        while True:
            yield from loader

    batches = endless()
    yield lambda: next(batches)
    batches.close()


def _rate(take: Callable[[], None], flags: argparse.Namespace) -> float:
    """Images per second, once what was read ahead is used up."""
    for _ in range(_UNTIMED):
        take()
    start = time.perf_counter()
    for _ in range(flags.batches):
        take()
    return flags.batches * flags.batch_size / (time.perf_counter() - start)


def _compare_steps(directory: Path, flags: argparse.Namespace) -> str:
    """Training steps fed by either feed, and the share of the streaming ones' time that the device had no data."""
    from fer_jax.data.stored import load_prepared

    split = load_prepared(directory, flags.train_size, lazy=True).splits['train']
    waits = []
    with contextlib.ExitStack() as stack:
        runs = [_make_run(name, split, flags, stack) for name in ('streaming', 'resident')]
        pairs = in_turn(lambda: _step_rate(runs[0], flags, waits), lambda: _step_rate(runs[1], flags, []), flags.pairs)
    streaming, resident = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(one / two for one, two in pairs)
    name = (
        f'residual network of {flags.blocks} blocks, {flags.train_size} px from 224 px JPEG, {flags.train_batch} images'
    )
    return f'{name} | {resident:,.1f} | {streaming:,.1f} | {ratio:.2f} | {statistics.median(waits):.1%}'


def _make_run(name: str, split, flags: argparse.Namespace, stack: contextlib.ExitStack) -> dict:
    import jax
    import optax

    from fer_jax.data.augment import Augmentation
    from fer_jax.data.feed import ResidentFeed
    from fer_jax.data.preprocess import Preprocessing
    from fer_jax.data.streaming import StreamingFeed
    from fer_jax.models.resnet import ResNet
    from fer_jax.training import classify
    from fer_jax.training.dispatch import make_advance
    from fer_jax.training.mesh import make_placement

    placement = make_placement(flags.train_batch, jax.devices()[:1])
    task = classify.Task(
        model=ResNet(num_classes=8, blocks=tuple(int(count) for count in flags.blocks.split(','))),
        optimizer=optax.sgd(0.05, 0.9),
        preprocessing=Preprocessing(flags.train_size, 3),
        augmentation=Augmentation(flip=True, rotate=10.0, shift=0.1),
    )
    feed = {'streaming': StreamingFeed, 'resident': ResidentFeed}[name](split, 0, flags.train_batch, 1)
    stack.enter_context(contextlib.closing(feed))
    return {
        'advance': make_advance(functools.partial(classify.train_step, task), feed, placement, 0),
        'state': jax.device_put(classify.init_state(task, jax.random.key(0)), placement.replicated),
        'feed': feed,
        'step': 0,
    }


def _step_rate(run: dict, flags: argparse.Namespace, waits: list[float]) -> float:
    import jax

    def steps(count: int) -> None:
        for _ in range(count):
            run['state'], sums = run['advance'](run['state'], run['step'], 1)
            run['step'] += 1
        jax.block_until_ready(sums)

    steps(2)
    start, waited = time.perf_counter(), run['feed'].waited
    steps(flags.train_steps)
    seconds = time.perf_counter() - start
    if waited is not None:
        waits.append((run['feed'].waited - waited) / seconds)
    return flags.train_steps * flags.train_batch / seconds


if __name__ == '__main__':
    main()
