"""`python -m fer_jax.rehearsal`: draws a few faces in the layout in which a data set is obtained.

    python -m fer_jax.rehearsal --dataset=ckplus --output=DIR

`reproduce --rehearse` prepares them, trains every row for two steps and writes its table, so that whoever has no data
yet sees the whole way, and whoever has it knows that the way is open before days of training. It is no result.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from fer_jax import cli
from fer_jax.errors import UserError

NOT_A_RESULT = 'REHEARSAL, NO RESULT'
_EMOTIONS = ('anger', 'contempt', 'disgust', 'fear', 'happiness', 'neutral', 'sadness', 'surprise')
_CKPLUS = ('anger', 'contempt', 'disgust', 'fear', 'happiness', 'sadness', 'surprise')
_FER2013 = ('anger', 'disgust', 'fear', 'happiness', 'sadness', 'surprise', 'neutral')
_AFFECTNET = ('neutral', 'happiness', 'sadness', 'surprise', 'fear', 'disgust', 'anger', 'contempt')
_VOTED = ('neutral', 'happiness', 'surprise', 'sadness', 'anger', 'disgust', 'fear', 'contempt', 'unknown', 'NF')
_USAGES = {'train': 'Training', 'validation': 'PublicTest', 'test': 'PrivateTest'}

# Two steps, read by whatever the row reads.
_SHORT = {
    'train.steps': 2,
    'train.batch_size': 8,
    'train.early_stopping': 0,
    'schedule.warmup_epochs': 0,
    'schedule.cycles': 1,
    'schedule.first_cycle': 1.0,
    'evaluation.every_steps': 1,
    'evaluation.batch_size': 16,
    'evaluation.last': 1,
    'checkpoint.every_steps': 0,
    'checkpoint.snapshot_steps': 0,
    'log_every_steps': 1,
    'init_from': '',
    'train.teachers': (),
}
_FEW_DRAWN = {'num_train': 96, 'num_validation': 64, 'num_test': 64}


def main(argv: list[str] | None = None) -> int:
    """Parses the flags and draws; see the module."""
    parser = cli.ArgumentParser(prog='fer_jax.rehearsal', description=__doc__.splitlines()[0])
    parser.add_argument('--dataset', required=True, metavar='NAME', help=f'one of: {", ".join(LAYOUTS)}')
    parser.add_argument('--output', required=True, type=Path, metavar='DIR', help='an empty or new directory')
    flags = parser.parse_args(argv)
    if flags.dataset not in LAYOUTS:
        raise UserError(f'--dataset={flags.dataset} cannot be drawn; these can: {", ".join(LAYOUTS)}')
    if flags.output.exists() and (not flags.output.is_dir() or any(flags.output.iterdir())):
        raise UserError(f'--output={flags.output} is there already; an empty or new directory is wanted')
    LAYOUTS[flags.dataset](flags.output)
    print(f'drew faces in the layout of {flags.dataset} into {flags.output}')
    return 0


def changes(config: ConfigDict, output: Path) -> dict[str, Any]:
    """What makes a run, or each fold of a cross-validation, a matter of seconds.

    Args:
        config: of the run; its length, folds, cuts and data change, nothing else.
        output: of the rehearsal.
    """
    shorter = dict(_SHORT)
    if config.data.folds:
        shorter['data.folds'] = 3
    if len(config.data.resplit) == 1:  # a number of images per class
        shorter['data.resplit'] = '2'
    if config.data.name == 'synthetic':
        few = {name: min(count, config.data.synthetic[name]) for name, count in _FEW_DRAWN.items()}
        return shorter | {f'data.synthetic.{name}': count for name, count in few.items()}
    return shorter | {'data.name': str(prepared(config.data.name, output))}


def prepared(name: str, output: Path) -> Path:
    """Where a rehearsal prepares what lies in the directory `name` otherwise."""
    return output / 'data' / Path(name).name


def write_ckplus(directory: Path) -> None:
    """CK+48: one folder per emotion, `S012_003_00000002.png` being frame 2 of sequence 3 of subject 12."""
    for index, emotion, subject, image in _faces(_CKPLUS, 126):
        folder = directory / emotion
        folder.mkdir(parents=True, exist_ok=True)
        sequence, frame = _CKPLUS.index(emotion) + 1, index + 1
        Image.fromarray(image).convert('L').save(folder / f'S{subject:03d}_{sequence:03d}_{frame:08d}.png')


def write_affectnet(directory: Path) -> None:
    """The eight-emotion release: pictures beside arrays of label (a string), valence, arousal and landmarks."""
    for part, count, first in (('train_set', 96, 0), ('val_set', 32, 50_000)):
        for kind in ('images', 'annotations'):
            (directory / part / kind).mkdir(parents=True)
        for index, emotion, _, image in _faces(_EMOTIONS, count, first):
            Image.fromarray(image).save(directory / part / 'images' / f'{index}.jpg', quality=95)
            told = {
                'exp': str(_AFFECTNET.index(emotion)),
                'val': index % 9 / 4 - 1,
                'aro': index % 7 / 3 - 1,
                'lnd': np.arange(136.0),
            }
            for name, value in told.items():
                np.save(directory / part / 'annotations' / f'{index}_{name}.npy', np.array(value))


def write_rafdb(directory: Path) -> None:
    """One folder per emotion under train and test."""
    emotions = [emotion for emotion in _EMOTIONS if emotion != 'contempt']
    for split, count, first in (('train', 84, 0), ('test', 35, 50_000)):
        for index, emotion, _, image in _faces(emotions, count, first):
            folder = directory / split / emotion
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f'{split}_{index:05d}_aligned.jpg', quality=95)


def write_fer2013(directory: Path) -> None:
    """fer2013.csv."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / 'fer2013.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(('emotion', 'pixels', 'Usage'))
        for usage, emotion, image in _fer2013_rows():
            writer.writerow((_FER2013.index(emotion), ' '.join(map(str, image.ravel().tolist())), usage))


def write_ferplus(directory: Path) -> None:
    """fer2013.csv, and beside it the ten votes on each of its rows."""
    write_fer2013(directory)
    with (directory / 'fer2013new.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(('Usage', 'Image name', *_VOTED))
        for index, (usage, emotion, _) in enumerate(_fer2013_rows()):
            # Every eighth face of anger is called contempt, which FER2013 does not have.
            emotion = 'contempt' if emotion == 'anger' and index % 8 == 0 else emotion
            votes = [8 * (name == emotion) + (name in ('neutral', 'sadness')) for name in _VOTED]
            writer.writerow((usage, f'fer{index:07d}.png', *votes))


def _fer2013_rows() -> Iterator[tuple[str, str, np.ndarray]]:
    for split, count, first in (('train', 112, 0), ('validation', 35, 50_000), ('test', 35, 60_000)):
        for _, emotion, _, image in _faces(_FER2013, count, first):
            yield _USAGES[split], emotion, np.asarray(Image.fromarray(image).convert('L'))


def _faces(emotions: Sequence[str], count: int, first: int = 0) -> Iterator[tuple[int, str, int, np.ndarray]]:
    """Index, emotion, subject and uint8 [48, 48, 3] of drawn faces, from index `first` on."""
    from fer_jax.data.dataset import EMOTIONS
    from fer_jax.data.synthetic import render, sample_parameters

    indices = np.arange(first, first + count)
    parameters, truth = sample_parameters(0, indices, classes=emotions)
    emotion_N, subject_N, images = np.asarray(truth.emotion), np.asarray(truth.subject), render(parameters, 48, 3)
    for index, image, emotion, subject in zip(indices.tolist(), images, emotion_N, subject_N, strict=True):
        yield index, EMOTIONS[emotion], int(subject), image


LAYOUTS = {
    'affectnet': write_affectnet,
    'ckplus': write_ckplus,
    'fer2013': write_fer2013,
    'ferplus': write_ferplus,
    'rafdb': write_rafdb,
}


if __name__ == '__main__':
    cli.run(main)
