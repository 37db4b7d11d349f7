"""The prepared form: a tfds builder with array_record files, and beside them the manifest.

Neither direction imports TensorFlow or reaches for the network.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from fer_jax.data.dataset import SPLITS, Dataset, Split, class_counts, pixel_hash
from fer_jax.data.files import printable
from fer_jax.data.pixels import decode_png, encode_png
from fer_jax.errors import UserError

MANIFEST = 'manifest.json'
_TEXTS = ('id', 'pixel_hash', 'subject')


class _LocalInfo(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Keeps tfds from asking a bucket for this data set, and from leaving an empty temporary directory."""


class Faces(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes the non-empty splits of a Dataset in their order; `progress` wraps the loop over each split."""

    VERSION = tfds.core.Version('1.0.0')
    code_path = None  # no checksums beside this file; finding it needs importlib_resources, which tfds does not install

    def __init__(self, dataset: Dataset, data_dir: Path, progress: Callable[[Iterable, str], Iterable]):
        self._dataset = dataset
        self._progress = progress
        super().__init__(data_dir=os.fspath(data_dir), file_format='array_record')

    def _info(self) -> tfds.core.DatasetInfo:
        shape = tuple(self._dataset.manifest['image_shape'])
        features = {
            'image': tfds.features.Image(shape=shape, encoding_format='png'),
            'label': tfds.features.ClassLabel(names=list(self._dataset.class_names)),
        } | {name: tfds.features.Text() for name in _TEXTS}
        return _LocalInfo(builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True)

    def _split_generators(self, dl_manager):
        del dl_manager
        return {name: self._generate_examples(name) for name, split in self._dataset.splits.items() if len(split)}

    def _generate_examples(self, name: str):
        split = self._dataset.splits[name]
        subjects = split.extra.get('subject', [''] * len(split))
        for index in self._progress(range(len(split)), name):
            yield (
                index,
                {
                    'image': encode_png(split.images[index]),
                    'label': int(split.labels[index]),
                    'id': str(split.ids[index]),
                    'pixel_hash': str(split.pixel_hashes[index]),
                    'subject': str(subjects[index]),
                },
            )


def describe(
    name: str, class_names: tuple[str, ...], splits: Mapping[str, Split], image_shape: tuple[int, int, int]
) -> dict[str, Any]:
    """The part of a manifest that `load_prepared` checks: class names, image shape, counts and the checksum."""
    return {
        'dataset': name,
        'class_names': list(class_names),
        'image_shape': list(image_shape),
        'counts': {split: class_counts(examples.labels, class_names) for split, examples in splits.items()},
        'checksum': _checksum(splits, class_names),
    }


def store_prepared(
    dataset: Dataset, directory: Path, progress: Callable[[Iterable, str], Iterable] = lambda items, _: items
) -> None:
    """Writes the array_record files and the manifest into `directory`, which is there and is not half-read by anyone.

    `dataset.manifest` has to hold what `describe` gives.

    Raises:
        OSError: if the disk is full or fails.
    """
    tfds.disable_progress_bar()
    build = directory / 'build'
    with contextlib.redirect_stdout(io.StringIO()):  # tfds prints the sizes it does not know
        builder = Faces(dataset, build, progress)
        try:
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
        except RuntimeError as error:  # array_record has the system's message, but not its exception
            for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
                if os.strerror(number) in str(error):
                    raise OSError(number, os.strerror(number), os.fspath(directory)) from None
            raise
    for file in sorted(Path(builder.data_dir).iterdir()):
        file.rename(directory / file.name)
    shutil.rmtree(build)
    for name, split in dataset.splits.items():
        np.savez(index_path(directory, name), label=split.labels, **_texts(split), **_numbers(split))
    (directory / MANIFEST).write_text(json.dumps(dataset.manifest, indent=2) + '\n')


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
        for key in ('dataset', 'class_names', 'image_shape', 'counts', 'checksum', 'source'):
            manifest[key]
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(directory, f'{MANIFEST}: {error!r}') from None
    return manifest


def load_prepared(directory: str | os.PathLike) -> Dataset:
    """Reads a prepared directory into memory and checks every label, id and pixel against the manifest.

    Raises:
        UserError: if the directory is missing or damaged; the message names the prepare command that helps.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    class_names = tuple(manifest['class_names'])
    splits = {}
    try:
        builder = tfds.builder_from_directory(os.fspath(directory))
        for name in SPLITS:
            if name in manifest['counts']:
                stored = sum(manifest['counts'][name].values())
                records = _records(builder, name) if stored else []
                splits[name] = _split(records, tuple(manifest['image_shape']))
        intact = {name: class_counts(split.labels, class_names) for name, split in splits.items()} == manifest['counts']
        intact = intact and _checksum(splits, class_names) == manifest['checksum']
    except Exception as error:  # what is broken decides which of tfds, array_record, protobuf and Pillow complains
        raise _damaged(directory, str(error).strip().split('\n')[0] or type(error).__name__) from None
    if not intact:
        raise _damaged(directory, 'its examples are not those of the manifest')
    return Dataset(manifest['dataset'], class_names, splits, manifest)


def _records(builder: tfds.core.DatasetBuilder, name: str) -> list:
    # tfds decodes one by one at twice the time, and its DESERIALIZE_NO_DECODE imports TensorFlow.
    source = builder.as_data_source(name, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    return [tf_example_pb2.Example.FromString(record) for record in source.__getitems__(range(len(source)))]


def _split(records: list, image_shape: tuple[int, ...]) -> Split:
    images = np.empty((len(records), *image_shape), np.uint8)
    labels = np.empty(len(records), np.int32)
    texts = {name: [] for name in _TEXTS}
    for index, record in enumerate(records):
        feature = record.features.feature
        image = decode_png(feature['image'].bytes_list.value[0], image_shape)
        images[index] = image
        labels[index] = feature['label'].int64_list.value[0]
        for name in _TEXTS:
            texts[name].append(feature[name].bytes_list.value[0].decode())
        if pixel_hash(image) != texts['pixel_hash'][-1]:
            raise ValueError(f'the pixels of {texts["id"][-1]} have changed')
    extra = {'subject': np.array(texts['subject'], str)} if any(texts['subject']) else {}
    return Split(images, labels, np.array(texts['id'], str), np.array(texts['pixel_hash'], str), extra)


def _texts(split: Split) -> dict[str, np.ndarray]:
    subjects = split.extra.get('subject', np.full(len(split), ''))
    return {'id': split.ids, 'pixel_hash': split.pixel_hashes, 'subject': subjects}


def _numbers(split: Split) -> dict[str, np.ndarray]:
    return {name: values for name, values in split.extra.items() if name != 'subject'}


def _checksum(splits: Mapping[str, Split], class_names: tuple[str, ...]) -> str:
    """SHA-256 over split, id, class name and pixel hash of every example, in order."""
    digest = hashlib.sha256()
    for name, split in splits.items():
        for identity, label, pixels in zip(split.ids, split.labels, split.pixel_hashes, strict=True):
            digest.update(f'{name}\t{identity}\t{class_names[label]}\t{pixels}\n'.encode())
    return digest.hexdigest()


def _damaged(directory: Path, what: str) -> UserError:
    return UserError(
        f'{printable(directory)} is damaged ({what}); make it anew with: '
        f'python -m fer_jax.prepare --dataset=NAME --source=PATH --output={printable(directory)} --overwrite'
    )
