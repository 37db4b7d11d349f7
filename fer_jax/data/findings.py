"""What preparing a data set found: in lines for people, and in tables."""

from __future__ import annotations

import collections
import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fer_jax.data.dataset import Dataset
from fer_jax.data.duplicates import Copy, is_conflicting
from fer_jax.data.records import Reject


def report_lines(dataset: Dataset, rejects: Sequence[Reject], skipped: Sequence[str]) -> Iterable[str]:
    """A table of counts, what was rejected and skipped, faces found, duplicates."""
    manifest = dataset.manifest
    counts = manifest['counts']
    width = max(map(len, (*dataset.class_names, 'total')))
    yield ' ' * width + ''.join(f'{name:>12}' for name in counts)
    for name in dataset.class_names:
        yield f'{name:<{width}}' + ''.join(f'{split[name]:>12,}' for split in counts.values())
    yield f'{"total":<{width}}' + ''.join(f'{sum(split.values()):>12,}' for split in counts.values())
    for split, of_class in counts.items():
        absent = [name for name, count in of_class.items() if not count]
        if absent and len(absent) < len(of_class):
            yield f'Mind: {split} has no image of {", ".join(absent)}'
    accepted, total = manifest['accepted'], manifest['total']
    yield f'Accepted {accepted:,} of {total:,}, rejected {len(rejects):,}' + (' (see rejects.csv)' if rejects else '')
    reasons = collections.Counter(re.sub(r'[0-9]+|\'.*\'', '…', row.reason) for row in rejects)
    for reason, count in reasons.most_common(5):
        yield f'  {count:,}: {reason}'
    if skipped:
        shown = ', '.join(skipped[:3]) + (', …' if len(skipped) > 3 else '')
        yield f'Skipped {len(skipped):,} that are no examples ({shown})'
    if manifest['faces']:
        faces = manifest['faces']
        yield (
            f'Faces found in {faces["found"]:,} pictures; without: {faces["kept_without"]:,} kept, '
            f'{faces["rejected_without"]:,} rejected (see alignment.png)'
        )
    if manifest['oblong']:
        yield (
            f'Mind: {manifest["oblong"]:,} pictures are oblong (by more than a quarter), and training squeezes each to '
            'a square of config.data.size; --align cuts out the faces instead'
        )
    yield from _duplicate_lines('Identical images', manifest['duplicates'], counts)
    near = manifest['near_duplicates']
    yield from _duplicate_lines(f'Nearly identical images (at most {near["distance"]} bits of 64 apart)', near, counts)


def write_rejects(rejects: Iterable[Reject], path: Path) -> None:
    """A CSV of location and reason."""
    _write_csv(path, ('location', 'reason'), ((reject.location, reject.reason) for reject in rejects))


def write_duplicates(kinds: Mapping[str, Sequence[Sequence[Copy]]], class_names: Sequence[str], path: Path) -> None:
    """A CSV of groups by kind, a row per member; groups are numbered through all kinds."""
    groups = [(kind, group) for kind, groups in kinds.items() for group in groups]
    rows = (
        (number, copy.split, copy.id, class_names[copy.label], 'yes' if is_conflicting(group) else 'no', kind)
        for number, (kind, group) in enumerate(groups)
        for copy in group
    )
    _write_csv(path, ('group', 'split', 'id', 'label', 'conflicting', 'kind'), rows)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(header)
        writer.writerows(rows)


def _duplicate_lines(what: str, found: Mapping[str, Any], splits: Iterable[str]) -> Iterable[str]:
    yield (
        f'{what}: {found["groups"]:,} groups, {found["spare_copies"]:,} spare copies, '
        f'{found["conflicting_groups"]:,} groups with conflicting labels'
        + (' (see duplicates.csv)' if found['groups'] else '')
    )
    if found['groups']:
        for name, twins in found['twins_in_train'].items():
            if {name, 'train'} <= set(splits):
                other = found['twins_in_train_other_label'][name]
                yield f'  {twins:,} {name} images have a twin in train, {other:,} of them under another label'
        if {'validation', 'test'} <= set(splits):
            yield f'  {found["groups_in_validation_and_test"]:,} groups span validation and test'
