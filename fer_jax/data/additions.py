"""Further pictures for the training split alone, from CSV files of path,label: translations, or a user's own."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fer_jax.data.chained import ChainedImages
from fer_jax.data.change_files import Rows, class_index, read_rows, with_training
from fer_jax.data.dataset import Dataset, Split, pixel_hash
from fer_jax.data.pixels import decode_picture
from fer_jax.data.stored import StoredImages, fit_images
from fer_jax.errors import UserError

_FIELD = 'config.data.extra'


def add_pictures(dataset: Dataset, paths: Sequence[str]) -> Dataset:
    """Adds the pictures of the files to the training split, brought to the size of its images.

    Their ids are `extraN/PATH` with N the file's place. Of further arrays, `targets` are the label; what else the split
    knows of its images is unknown of these: '', -1, not a number.

    Args:
        paths: CSV files with the columns path (relative to the file) and label; `source`, which `translate` writes, is
            the id of the image that a picture was made from.

    Raises:
        UserError: naming the line of a picture that is not there or none, of a class that is none, or of a picture made
            from an evaluation image, such as a fold that is tested.
    """
    if not paths:
        return dataset
    files = [read_rows(path, _FIELD, ('path', 'label')) for path in paths]
    held_out = dataset.held_out()
    train = dataset.splits['train']
    found = [(f'extra{place}/', rows, line) for place, rows in enumerate(files) for line in rows.rows]
    images = np.empty((len(found), *train.images.shape[1:]), np.uint8)
    labels, ids, hashes, seen = [], [], [], set()
    bar = tqdm(found, desc='reading extra', unit='image', delay=2, leave=False, file=sys.stderr)
    for row, (prefix, rows, (number, cells)) in enumerate(bar):
        place = f'{rows.path}:{number}'
        if prefix + cells['path'] in seen:
            raise UserError(f'{place}: {cells["path"]} stands there twice')
        seen.add(prefix + cells['path'])
        if cells.get('source') in held_out:
            raise UserError(
                f'{place}: {cells["path"]} is made from {cells["source"]}, which is a {held_out[cells["source"]]} '
                'image here; only what is made from training images can be trained on'
            )
        labels.append(class_index(cells['label'], dataset.class_names, place))
        picture = _read(rows, cells['path'], place)
        images[row] = _fit(picture, images.shape[1:], place)
        ids.append(prefix + cells['path'])
        hashes.append(pixel_hash(picture))
    added = Split(images, np.array(labels, np.int32), np.array(ids, str), np.array(hashes, str))
    whole = _join(train, added, len(dataset.class_names))
    told = {
        'files': [rows.described() for rows in files],
        'pictures': hashlib.sha256('\n'.join(hashes).encode()).hexdigest(),
        'added': len(added),
        'before': len(train),
        'after': len(whole),
    }
    return with_training(dataset, whole, 'extra', told)


def _read(rows: Rows, name: str, place: str) -> np.ndarray:
    path = Path(rows.path).parent / name
    try:
        return decode_picture(path.read_bytes())
    except OSError as error:
        raise UserError(f'{place}: the picture {path} cannot be read ({error.strerror})') from None
    except ValueError as error:
        raise UserError(f'{place}: {path}: {error}') from None


def _fit(picture: np.ndarray, shape: tuple[int, int, int], place: str) -> np.ndarray:
    height, width, channels = shape
    if picture.shape[:2] != (height, width) and height != width:
        raise UserError(
            f'{place}: the picture has {picture.shape[1]}x{picture.shape[0]} pixels, the training images '
            f'{width}x{height}; set config.data.size to bring all to one side'
        )
    return fit_images(picture[None], height if picture.shape[:2] != (height, width) else 0, channels)[0]


def _join(train: Split, added: Split, num_classes: int) -> Split:
    if isinstance(train.images, StoredImages):
        rows = np.arange(len(train) + len(added))
        images = ChainedImages(train.images, added.images, rows)
    else:
        images = np.concatenate([train.images, added.images])
    join = lambda name: np.concatenate([getattr(train, name), getattr(added, name)])
    extra = {name: np.concatenate([values, _unknown(values, len(added))]) for name, values in train.extra.items()}
    if 'targets' in extra:
        extra['targets'][len(train) :] = np.eye(num_classes, dtype=np.float32)[added.labels]
    return dataclasses.replace(
        train, images=images, extra=extra, **{name: join(name) for name in ('labels', 'ids', 'pixel_hashes')}
    )


def _unknown(values: np.ndarray, count: int) -> np.ndarray:
    nothing = {'U': '', 'f': np.nan, 'i': -1}.get(values.dtype.kind, 0)
    return np.full((count, *values.shape[1:]), nothing, values.dtype)
