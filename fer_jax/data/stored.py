"""Reading the prepared form: the index at once, the pictures at once or when they are asked for.

Imports neither JAX nor TensorFlow. Shape letters: N pictures, H and W pixels, C channels.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from fer_jax.data.dataset import SPLITS, Dataset, Split, class_counts, examples_checksum, pixel_hash
from fer_jax.data.files import printable
from fer_jax.data.pixels import decode_stored
from fer_jax.data.prepared import index_path, read_manifest
from fer_jax.data.record_files import RecordFiles
from fer_jax.data.workers import usable_cores
from fer_jax.errors import UserError

_TOGETHER = 1024  # pictures read at a time where all are read
_PER_THREAD = 16  # pictures, at least: a small picture is decoded sooner than a thread is woken


def load_prepared(directory: str | os.PathLike, size: int = 0, channels: int = 0, lazy: bool = False) -> Dataset:
    """Reads a prepared directory and checks it against its manifest.

    Args:
        size, channels: as in `fit_images`, but 0 keeps an oblong shape too.
        lazy: the images are StoredImages, of which nothing is read yet; only the index is checked now, and each
            record when it is read. Otherwise they are arrays, and every pixel is checked (see `StoredImages.load`).

    Raises:
        UserError: if the directory is missing or damaged; the message names the prepare command that helps.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    class_names = tuple(manifest['class_names'])
    try:
        splits = {name: _open_split(directory, name, manifest) for name in SPLITS if name in manifest['counts']}
        intact = {name: class_counts(split.labels, class_names) for name, split in splits.items()} == manifest['counts']
        intact = intact and examples_checksum(splits, class_names) == manifest['checksum']
    except Exception as error:  # what is broken decides which of numpy, zipfile and array_record complains
        raise _damaged(directory, _first_line(error)) from None
    if not intact:
        raise _damaged(directory, 'its examples are not those of the manifest')
    for name, split in splits.items():
        images = split.images.fit(size, channels) if size or channels else split.images
        splits[name] = dataclasses.replace(split, images=images if lazy else images.load(name))
    return Dataset(manifest['dataset'], class_names, splits, manifest)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class StoredImages:
    """The pictures of a split, in its array_record files; indexes like a uint8 array [N, H, W, C] and reads then.

    What is read is decoded by threads on all cores (Pillow lets go of the interpreter) and brought to its size by
    `fit_images`. A JPEG that is to be made smaller is decoded at the smallest of 1/1, 1/2, 1/4, 1/8 that is not
    smaller than wanted, which takes a third to a fifth of the time from 224 to 48 and 112 pixels and differs by
    less than a grey level on average.

    Can be pickled and forked: files are opened anew in each process, when first read.

    Attributes:
        directory: the prepared one.
        records: its files, all those of the split.
        rows: int64 [N], which of their records.
        pixel_hashes: str [N], what those records must say of their pictures.
        stored_shape: H, W, C of every picture, or None if they differ in height and width.
        side: in pixels, to resize to; 0: as stored.
        channels: 1 or 3; a grey picture among coloured ones is stored grey.
    """

    directory: Path
    records: RecordFiles
    rows: np.ndarray
    pixel_hashes: np.ndarray
    stored_shape: tuple[int, int, int] | None
    side: int
    channels: int

    dtype = np.dtype(np.uint8)
    ndim = 4

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, H, W, C.

        Raises:
            UserError: if the pictures differ in size and no size is set.
        """
        if self.side:
            return len(self), self.side, self.side, self.channels
        if self.stored_shape is None:
            raise UserError(
                f'the pictures of {printable(self.directory)} differ in size; set config.data.size to the side '
                'wanted, such as --config.data.size=64'
            )
        return len(self), *self.stored_shape[:2], self.channels

    @property
    def nbytes(self) -> int:
        """Bytes of all pictures as they are given."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        """One picture for an integer, several for a slice, indices or a mask, as numpy has it."""
        rows, hashes = self.rows[key], self.pixel_hashes[key]
        pictures = self._read(np.ravel(rows), np.ravel(hashes))
        return pictures.reshape(*np.shape(rows), *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def select(self, keep: np.ndarray) -> StoredImages:
        """The pictures where `keep` (bool [N] or indices) says so; reads nothing."""
        return dataclasses.replace(self, rows=self.rows[keep], pixel_hashes=self.pixel_hashes[keep])

    def join(self, *others: StoredImages) -> StoredImages:
        """These pictures and then those of other splits of the same prepared directory; reads nothing."""
        whole = self
        for other in others:
            if (other.stored_shape, other.side, other.channels) != (self.stored_shape, self.side, self.channels):
                raise ValueError('pictures of different shapes do not join')
            whole = dataclasses.replace(
                whole,
                records=whole.records + other.records,
                rows=np.concatenate([whole.rows, len(whole.records) + other.rows]),
                pixel_hashes=np.concatenate([whole.pixel_hashes, other.pixel_hashes]),
            )
        return whole

    def fit(self, size: int, channels: int) -> StoredImages:
        """The same pictures at another side and number of channels, as `fit_images` has it; reads nothing."""
        _check_channels(channels)
        return dataclasses.replace(self, side=size or self.shape[1], channels=channels or self.channels)

    def content_hash(self) -> str:
        """SHA-256 (first 32 hex digits) of which pictures these are, in whatever order."""
        return hashlib.sha256('\n'.join(sorted(self.pixel_hashes.tolist())).encode()).hexdigest()[:32]

    def load(self, progress: str = '') -> np.ndarray:
        """All pictures as one array, each checked against its hash where it is decoded whole.

        Args:
            progress: words for a progress bar.

        Raises:
            UserError: if a picture is damaged, or not the one that was prepared.
        """
        images = np.empty(self.shape, np.uint8)
        with tqdm(total=len(self), desc=progress, unit='image', disable=None, dynamic_ncols=True, leave=False) as bar:
            for start in range(0, len(self), _TOGETHER):
                here = slice(start, start + _TOGETHER)
                images[here] = self._read(self.rows[here], self.pixel_hashes[here], check=True)
                bar.update(len(images[here]))
        return images

    def _read(self, rows: np.ndarray, hashes: np.ndarray, check: bool = False) -> np.ndarray:
        from tensorflow_datasets.proto import tf_example_pb2  # here, since it takes half a second

        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        parse = tf_example_pb2.Example.FromString

        def decode(span: range) -> None:
            for place in span:
                images[place] = self._decode(records[place], str(hashes[place]), check, parse)

        try:
            records = self.records.read(rows)
            threads = usable_cores()
            share = max(_PER_THREAD, -(-len(rows) // threads))
            spans = [range(start, min(start + share, len(rows))) for start in range(0, len(rows), share)]
            list(_pool(os.getpid()).map(decode, spans) if len(spans) > 1 else map(decode, spans))
        except Exception as error:  # what is broken decides which of array_record, protobuf and Pillow complains
            raise _damaged(self.directory, _first_line(error)) from None
        return images

    def _decode(self, record: bytes, expected: str, check: bool, parse: Callable[[bytes], Any]) -> np.ndarray:
        feature = parse(record).features.feature
        if feature['pixel_hash'].bytes_list.value[0].decode() != expected:
            raise ValueError('its records are not those of the index')
        data = feature['image'].bytes_list.value[0]
        smaller = self.side and (self.stored_shape is None or max(self.stored_shape[:2]) > self.side)
        if smaller and data.startswith(b'\xff\xd8'):
            picture = _decode_smaller(data, self.side)
        else:
            picture = decode_stored(data, spread=self.channels == 3 and not check)
            if check and pixel_hash(picture) != expected:
                raise ValueError(f'the pixels of {feature["id"].bytes_list.value[0].decode()} have changed')
        if self.side:
            return fit_images(picture[None], self.side, self.channels)[0]
        if picture.shape[:2] != self.stored_shape[:2]:
            raise ValueError(f'a picture of {picture.shape} among those of {self.stored_shape}')
        return picture  # a grey one spreads over three channels by itself


def fit_images(images_NHWC: np.ndarray, size: int, channels: int) -> np.ndarray:
    """Images (uint8) at another side (Lanczos, as PIL) and number of channels; 0 keeps the height and the channels."""
    n, height, width, stored = images_NHWC.shape
    _check_channels(channels)
    size, channels = size or height, channels or stored
    if channels == 1 and stored == 3:
        weights = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as PIL's mode L
        images_NHWC = np.rint(images_NHWC @ weights)[..., None].astype(np.uint8)
    elif channels == 3 and stored == 1:
        images_NHWC = np.repeat(images_NHWC, 3, -1)
    if (height, width) == (size, size):
        return images_NHWC
    resized = np.empty((n, size, size, channels), np.uint8)
    for index, image in enumerate(images_NHWC):
        pixels = image[..., 0] if channels == 1 else image
        resized[index] = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS)).reshape(
            size, size, channels
        )
    return resized


def _open_split(directory: Path, name: str, manifest: Mapping[str, Any]) -> Split:
    with open(index_path(directory, name), 'rb') as file, np.load(file) as index:
        columns = {column: index[column] for column in index.files}
    records = RecordFiles(sorted(directory.glob(f'*-{name}.array_record-*')))
    rows = np.arange(len(columns['label']))
    if len(records) != len(rows):
        raise ValueError(f'{len(records)} records of {name} and {len(rows)} rows of its index')
    shape = manifest['image_shape'] and tuple(manifest['image_shape'])
    hashes = columns.pop('pixel_hash')
    images = StoredImages(directory, records, rows, hashes, shape, 0, manifest['channels'])
    labels, ids = columns.pop('label').astype(np.int32), columns.pop('id')
    extra = {column: values for column, values in columns.items() if values.dtype.kind != 'U' or (values != '').any()}
    return Split(images, labels, ids, hashes, extra)


def _decode_smaller(data: bytes, side: int) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=('JPEG',)) as picture:
        # What is left of the last block is no part of the picture: 60 pixels at 1/8 are 7.5 of the 8 decoded.
        _, box = picture.draft(None, (side, side)) or (None, None)
        pixels = np.asarray(picture.resize((side, side), Image.Resampling.LANCZOS, box))
    return pixels if pixels.ndim == 3 else pixels[..., None]


@functools.cache
def _pool(process: int) -> concurrent.futures.ThreadPoolExecutor:
    """Of this process: threads do not survive a fork."""
    del process
    return concurrent.futures.ThreadPoolExecutor(usable_cores(), 'decode')


def _check_channels(channels: int) -> None:
    if channels not in (0, 1, 3):
        raise UserError(f'config.data.channels is {channels}; it can be 1 (grey) or 3 (RGB)')


def _first_line(error: Exception) -> str:
    return str(error).strip().split('\n')[0] or type(error).__name__


def _damaged(directory: Path, what: str) -> UserError:
    return UserError(
        f'{printable(directory)} is damaged ({what}); make it anew with: '
        f'python -m fer_jax.prepare --dataset=NAME --source=PATH --output={printable(directory)} --overwrite'
    )
