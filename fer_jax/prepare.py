"""Turns a data set as users have it into the prepared form that training reads.

    python -m fer_jax.prepare --dataset=fer2013 --source=PATH [--output=data/fer2013] [--overwrite]

PATH is a CSV, a directory or a zip. The output holds the examples (array_record), manifest.json, rejects.csv,
duplicates.csv and overview.png: look at the latter before training.
"""

from __future__ import annotations

import collections
import csv
import difflib
import functools
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import fer_jax
from fer_jax import cli
from fer_jax.data import duplicates, fer2013
from fer_jax.data.aside import written_aside
from fer_jax.data.dataset import SPLITS, Dataset, Split, pixel_hash
from fer_jax.data.files import printable
from fer_jax.data.records import Example, Reject, Source
from fer_jax.errors import UserError

READERS = {'fer2013': fer2013.open_source}


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.ArgumentParser(prog='python -m fer_jax.prepare', description='Prepares a data set for training.')
    parser.add_argument('--dataset', required=True, metavar='NAME', help=f'one of: {", ".join(READERS)}')
    parser.add_argument('--source', required=True, type=Path, metavar='PATH', help='a CSV, a directory or a zip')
    parser.add_argument('--output', type=Path, metavar='DIR', help='where it goes (default: data/NAME)')
    parser.add_argument('--overwrite', action='store_true', help='replace what an earlier run has put there')
    arguments = parser.parse_args(argv)
    output = arguments.output or Path('data', arguments.dataset)
    prepare(arguments.dataset, arguments.source, output, overwrite=arguments.overwrite)
    return 0


def prepare(dataset: str, source: Path, output: Path, *, overwrite: bool = False) -> None:
    """Reads a source, writes the prepared form aside and moves it to `output`; prints what it found.

    Raises:
        UserError: on an unknown data set, an unusable source, or an output that holds something else.
    """
    if dataset not in READERS:
        close = difflib.get_close_matches(dataset, READERS, 1)
        hint = f'did you mean {close[0]}? ' if close else ''
        raise UserError(f'--dataset={dataset} is not known; {hint}known: {", ".join(READERS)}')
    with READERS[dataset](source) as opened:
        # tfds and matplotlib take two seconds to import; a wrong flag or path has been answered by now.
        from fer_jax.data import prepared
        from fer_jax.data.overview import draw_overview

        if opened.path.is_dir() and output.resolve().is_relative_to(opened.path.resolve()):
            raise UserError(f'--output={printable(output)} lies inside the source; choose another place')
        print(f'Found {opened.form}: {opened.total:,} examples')
        digest, size = opened.fingerprint()
        if _is_filled(output) and _is_done(output, digest, overwrite):
            print(f'{printable(output)} holds it already')
            return
        examples, rejects = _read(opened)
    splits = _arrange(examples, opened)
    groups = duplicates.find_duplicates(splits)
    manifest = prepared.describe(dataset, opened.class_names, splits, opened.image_shape) | {
        'source': {'name': printable(opened.path.resolve().name), 'form': opened.form, 'sha256': digest, 'bytes': size},
        'total': opened.total,
        'accepted': len(examples),
        'rejected': len(rejects),
        'skipped': len(opened.skipped),
        'duplicates': duplicates.summarise(groups),
        'fer_jax_version': fer_jax.__version__,
    }
    made = Dataset(dataset, opened.class_names, splits, manifest)
    with written_aside(output, overwrite=overwrite) as aside:
        prepared.store_prepared(made, aside, lambda items, name: _progress(items, f'writing {name}'))
        _write_csv(aside / 'rejects.csv', ('location', 'reason'), ((row.location, row.reason) for row in rejects))
        _write_csv(
            aside / 'duplicates.csv',
            ('group', 'split', 'id', 'label', 'conflicting'),
            _copies(groups, opened.class_names),
        )
        draw_overview(made, aside / 'overview.png')
    print('\n'.join(_report(made, rejects, opened.skipped)))
    print(f'Wrote {printable(output)}; look at overview.png there before training')


def _is_filled(output: Path) -> bool:
    return output.exists() and (not output.is_dir() or any(output.iterdir()))


def _is_done(output: Path, digest: str, overwrite: bool) -> bool:
    """Whether `output` holds this very source, whole; False where it may be replaced.

    Raises:
        UserError: where it holds something else, or is damaged, and must not be replaced.
    """
    from fer_jax.data import prepared

    if not (output / prepared.MANIFEST).is_file():
        raise UserError(f'{printable(output)} is there and holds something else; choose another --output')
    if overwrite:
        return False
    earlier = prepared.load_prepared(output).manifest['source']
    if earlier.get('sha256') != digest:
        raise UserError(
            f'{printable(output)} was prepared from another source ({earlier.get("name")}); '
            'choose another --output or give --overwrite'
        )
    return True


def _read(source: Source) -> tuple[list[Example], list[Reject]]:
    examples, rejects = [], []
    for record in _progress(source.read(), 'reading', source.total):
        (rejects if isinstance(record, Reject) else examples).append(record)
    if len(examples) + len(rejects) != source.total:
        raise RuntimeError(f'{len(examples)} accepted and {len(rejects)} rejected are not {source.total}')
    if not examples:
        first = f'; the first: {rejects[0].location}: {rejects[0].reason}' if rejects else ''
        raise UserError(f'{printable(source.path)} has no readable example ({len(rejects)} rejected{first})')
    return examples, rejects


def _arrange(examples: Iterable[Example], source: Source) -> dict[str, Split]:
    """Examples to splits, each in the natural order of its ids, whatever the order of the source."""
    of_split = collections.defaultdict(list)
    for example in sorted(examples, key=lambda example: _natural(example.id)):
        of_split[example.split].append(example)
    splits = {}
    for name in SPLITS:
        rows = of_split[name]
        images = np.empty((len(rows), *source.image_shape), np.uint8)
        for index, row in enumerate(rows):
            images[index] = row.image
        splits[name] = Split(
            images,
            np.array([source.class_names.index(row.emotion) for row in rows], np.int32),
            np.array([row.id for row in rows], str),
            np.array([pixel_hash(image) for image in images], str),
            {'subject': np.array([row.subject for row in rows], str)},
        )
    return splits


def _natural(identity: str) -> tuple:
    """Sorts Training_9 before Training_10; compares digits as text, since ids may have thousands of them."""
    words = re.split('([0-9]+)', identity)
    numbers = (word.lstrip('0') for word in words[1::2])
    return tuple(zip(words[::2], [*((len(word), word) for word in numbers), (0, '')], strict=True)), identity


def _copies(groups: list[list[duplicates.Copy]], class_names: Sequence[str]) -> Iterable[tuple]:
    for number, group in enumerate(groups):
        conflicting = 'yes' if duplicates.is_conflicting(group) else 'no'
        for copy in group:
            yield number, copy.split, copy.id, class_names[copy.label], conflicting


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(header)
        writer.writerows(rows)


def _report(dataset: Dataset, rejects: Sequence[Reject], skipped: Sequence[str]) -> Iterable[str]:
    counts = dataset.manifest['counts']
    width = max(map(len, dataset.class_names))
    yield ' ' * width + ''.join(f'{name:>12}' for name in counts)
    for name in dataset.class_names:
        yield f'{name:<{width}}' + ''.join(f'{split[name]:>12,}' for split in counts.values())
    yield f'{"total":<{width}}' + ''.join(f'{sum(split.values()):>12,}' for split in counts.values())
    accepted, total = dataset.manifest['accepted'], dataset.manifest['total']
    yield f'Accepted {accepted:,} of {total:,}, rejected {len(rejects):,}' + (' (see rejects.csv)' if rejects else '')
    reasons = collections.Counter(re.sub(r'[0-9]+|\'.*\'', '…', row.reason) for row in rejects)
    for reason, count in reasons.most_common(5):
        yield f'  {count:,}: {reason}'
    if skipped:
        shown = ', '.join(skipped[:3]) + (', …' if len(skipped) > 3 else '')
        yield f'Skipped {len(skipped):,} that are no examples ({shown})'
    found = dataset.manifest['duplicates']
    yield (
        f'Identical images: {found["groups"]:,} groups, {found["spare_copies"]:,} spare copies, '
        f'{found["conflicting_groups"]:,} groups with conflicting labels (see duplicates.csv)'
    )
    for name, twins in found['twins_in_train'].items():
        other = found['twins_in_train_other_label'][name]
        yield f'  {twins:,} {name} images have a twin in train, {other:,} of them under another label'
    yield f'  {found["groups_in_validation_and_test"]:,} groups span validation and test'


_progress = functools.partial(tqdm, file=sys.stderr, unit=' images', mininterval=0.5, leave=False)


if __name__ == '__main__':
    cli.run(main)
