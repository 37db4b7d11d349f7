"""Writing the prepared form: array_record files that tfds reads too, an index beside them, and the manifest.

Does not import TensorFlow nor reach for the network. `fer_jax.data.stored` reads it.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_jax.data.dataset import Dataset, Split, class_counts, examples_checksum
from fer_jax.data.files import printable
from fer_jax.data.pixels import encode_png
from fer_jax.errors import UserError

if TYPE_CHECKING:  # half a second to import, for those who only read
    import tensorflow_datasets as tfds

FORMAT = 2  # of what lies in a prepared directory
MANIFEST = 'manifest.json'
_TEXTS = ('id', 'pixel_hash', 'subject')
_NAME = 'faces'
_PER_FILE = 10_000  # records


def describe(
    name: str,
    class_names: tuple[str, ...],
    splits: Mapping[str, Split],
    image_shape: tuple[int, int, int] | None,
    channels: int = 0,
) -> dict[str, Any]:
    """The part of a manifest that readers of the prepared form rely on.

    Args:
        image_shape: height and width of all pictures, and the most channels that any of them has; None if they
            differ in height or width.
        channels: the most that any picture has; can be left out where there is an image_shape.
    """
    return {
        'format': FORMAT,
        'dataset': name,
        'class_names': list(class_names),
        'image_shape': list(image_shape) if image_shape else None,
        'channels': image_shape[2] if image_shape else channels,
        'counts': {split: class_counts(examples.labels, class_names) for split, examples in splits.items()},
        'checksum': examples_checksum(splits, class_names),
    }


def store_prepared(
    dataset: Dataset,
    directory: Path,
    progress: Callable[[Iterable, str], Iterable] = lambda items, _: items,
    pictures: Mapping[str, Iterable[bytes]] | None = None,
) -> None:
    """Writes array_record files, index and manifest into `directory`, which is there and is not read by anyone yet.

    Args:
        dataset: its manifest holds what `describe` gives.
        progress: wraps the loop over a split's examples; it gets the split's name too.
        pictures: by split, its pictures as PNG or JPEG files (8 bit, grey or RGB, upright), in order; without them
            `dataset`'s images are stored as PNG. They can come from a generator: few are held at a time.

    Raises:
        OSError: if the disk is full or fails.
    """
    infos = []
    try:
        for name, split in dataset.splits.items():
            if len(split):
                files = pictures[name] if pictures else map(encode_png, split.images)
                infos.append(_write_split(directory, name, split, progress(files, name)))
    except RuntimeError as error:  # array_record has the system's message, but not its exception
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
            if os.strerror(number) in str(error):
                raise OSError(number, os.strerror(number), os.fspath(directory)) from None
        raise
    _write_info(dataset, directory, infos)
    for name, split in dataset.splits.items():
        np.savez(index_path(directory, name), **_columns(split))
    (directory / MANIFEST).write_text(json.dumps(dataset.manifest, indent=2) + '\n')


def _write_split(directory: Path, name: str, split: Split, files: Iterable[bytes]) -> tfds.core.SplitInfo:
    """Writes its records as tfds would, but in one go and to the same bytes on every run.

    tfds's builders hold a whole split in memory, and what tfds serializes has its fields in another order every time.
    """
    import tensorflow_datasets as tfds
    from array_record.python import array_record_module

    template = tfds.core.ShardedFileTemplate(
        dataset_name=_NAME, data_dir=os.fspath(directory), split=name, filetype_suffix='array_record'
    )
    counts = [min(_PER_FILE, len(split) - start) for start in range(0, len(split), _PER_FILE)]
    records, size = _records(split, files), 0
    for number, count in enumerate(counts):
        path = os.fspath(template.sharded_filepath(shard_index=number, num_shards=len(counts)))
        writer = array_record_module.ArrayRecordWriter(path, 'group_size:1')
        for record in itertools.islice(records, count):
            size += len(record)
            writer.write(record)
        writer.close()
    return tfds.core.SplitInfo(name=name, shard_lengths=counts, num_bytes=size, filename_template=template)


def _records(split: Split, files: Iterable[bytes]) -> Iterator[bytes]:
    from tensorflow_datasets.proto import tf_example_pb2

    columns = _columns(split)
    texts = [columns[name].tolist() for name in _TEXTS]
    for data, label, *values in zip(files, split.labels.tolist(), *texts, strict=True):
        example = tf_example_pb2.Example()
        feature = example.features.feature
        feature['image'].bytes_list.value.append(bytes(data))
        feature['label'].int64_list.value.append(label)
        for name, value in zip(_TEXTS, values, strict=True):
            feature[name].bytes_list.value.append(value.encode())
        yield example.SerializeToString(deterministic=True)


def _write_info(dataset: Dataset, directory: Path, splits: Sequence[tfds.core.SplitInfo]) -> None:
    """What makes tfds take the directory for one of its own."""
    import tensorflow_datasets as tfds

    shape = dataset.manifest['image_shape'] or (None, None, dataset.manifest['channels'])
    features = {
        'image': tfds.features.Image(shape=tuple(shape)),  # PNG or JPEG: told by content
        'label': tfds.features.ClassLabel(names=list(dataset.class_names)),
    } | {name: tfds.features.Text() for name in _TEXTS}
    identity = tfds.core.DatasetIdentity(
        name=_NAME, version=tfds.core.Version('1.0.0'), data_dir=os.fspath(directory), module_name=__name__
    )
    info = tfds.core.DatasetInfo(
        builder=identity, features=tfds.features.FeaturesDict(features), disable_shuffling=True
    )
    info.set_file_format('array_record')
    info.set_splits(tfds.core.SplitDict(splits))
    info.write_to_directory(os.fspath(directory))


def _columns(split: Split) -> dict[str, np.ndarray]:
    """What the index holds: `subject` always, and all of `extra`."""
    texts = {'id': split.ids, 'pixel_hash': split.pixel_hashes, 'subject': np.full(len(split), '')}
    return {'label': split.labels, **texts, **split.extra}


def index_path(directory: Path, split: str) -> Path:
    """Where everything but the pixels of a split lies, one row per record in their order: `label`, `id`, and so on."""
    return Path(directory) / f'index-{split}.npz'


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a prepared directory.

    Raises:
        UserError: if there is no such directory, or no readable manifest in it.
    """
    directory = Path(directory)
    how = f'python -m fer_jax.prepare --dataset=NAME --source=PATH --output={printable(directory)}'
    if not directory.is_dir():
        raise UserError(f'{printable(directory)} does not exist; make it with: {how}')
    if not (directory / MANIFEST).is_file():
        raise UserError(f'{printable(directory)} holds no prepared data ({MANIFEST} is missing); make it with: {how}')
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
        if manifest.get('format', 1) != FORMAT:
            raise UserError(f'{printable(directory)} was prepared by another version; make it with: {how} --overwrite')
        for key in ('dataset', 'class_names', 'image_shape', 'channels', 'counts', 'checksum', 'source'):
            manifest[key]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f'{printable(directory)} is damaged ({MANIFEST}: {error!r}); make it anew with: {how} --overwrite'
        ) from None
    return manifest
