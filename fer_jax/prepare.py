"""Turns a data set as users have it into the prepared form that training reads.

    python -m fer_jax.prepare --dataset=NAME --source=PATH [--output=data/NAME] [--align] [--overwrite]

PATH is a CSV, a directory or a zip. The output holds the examples (array_record), an index of all but their pixels,
manifest.json, rejects.csv, duplicates.csv and overview.png: look at the latter before training. A run that was
stopped, in whatever way, goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import functools
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from tqdm import tqdm

import fer_jax
from fer_jax import cli
from fer_jax.data.aside import written_aside
from fer_jax.data.assembling import Assembly, Listing, assemble, list_source, store
from fer_jax.data.files import PictureFiles, printable
from fer_jax.data.findings import report_lines
from fer_jax.data.preparing import made_smaller, plan_shards, prepare_pictures, read_face
from fer_jax.data.readers import affectnet, ckplus, fer2013, ferplus, folder, table
from fer_jax.data.records import ReaderOptions, Reject, Source
from fer_jax.data.shards import SHARD_FORMAT
from fer_jax.data.workers import usable_cores
from fer_jax.errors import UserError

READERS = {
    'fer2013': fer2013.open_source,
    'ferplus': ferplus.open_source,
    'affectnet': affectnet.open_source,
    'ckplus': ckplus.open_source,
    'folder': folder.open_source,
    'table': table.open_source,
}

_SHOWN_ALIGNED = 24


@dataclasses.dataclass(frozen=True)
class Alignment:
    """How faces are brought to one place: by which detector, to which side in pixels.

    `missing`: what becomes of a picture without a face: keep (the whole picture, resized) or reject.
    `landmarks`: the file that the detector dlib needs.
    """

    detector: str = 'mtcnn'
    size: int = 96
    missing: str = 'keep'
    landmarks: Path | None = None


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(argv)
    output = arguments.output or Path('data', arguments.dataset)
    try:
        prepare(
            arguments.dataset,
            arguments.source,
            output,
            options=_options(arguments),
            alignment=_alignment(arguments),
            workers=arguments.workers,
            overwrite=arguments.overwrite,
        )
    except KeyboardInterrupt:
        print('fer_jax.prepare: interrupted; the same command goes on from here', file=sys.stderr)
        return 130
    return 0


def settings_of(flags: Sequence[str]) -> dict[str, Any]:
    """What a manifest says of these flags (without --source and --output): `dataset`, `options` and `align`."""
    arguments = _parse([*flags, '--source=.'])
    return _chosen(arguments.dataset, _options(arguments), _alignment(arguments))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.ArgumentParser(prog='python -m fer_jax.prepare', description='Prepares a data set for training.')
    add = parser.add_argument
    add('--dataset', required=True, metavar='NAME', help=f'one of: {", ".join(READERS)}')
    add('--source', required=True, type=Path, metavar='PATH', help='a CSV, a directory or a zip')
    add('--output', type=Path, metavar='DIR', help='where it goes (default: data/NAME)')
    add('--overwrite', action='store_true', help='replace what an earlier run has put there')
    add('--classes', type=int, default=0, choices=(8, 7, 5), help="of AffectNet's emotions (default: all 8)")
    add('--split', type=_shares, default=(), metavar='80/10/10', help='cut the training part anew, stratified')
    add('--seed', type=int, default=0, help='of that cut')
    add('--votes', type=Path, metavar='PATH', help="FER+'s fer2013new.csv")
    add('--align', nargs='?', const='mtcnn', metavar='DETECTOR', help='bring faces to one place (default: mtcnn)')
    add('--align-size', type=int, metavar='N', help=f'side in pixels (default: {Alignment.size})')
    add('--align-missing', choices=('keep', 'reject'), help='pictures without a face (default: keep, resized)')
    add('--align-landmarks', type=Path, metavar='PATH', help='the file of 68 points that the detector dlib needs')
    add('--workers', type=int, default=usable_cores(), metavar='N', help='processes (default: one per core)')
    arguments = parser.parse_args(argv)
    if arguments.workers < 1:
        raise UserError(f'--workers={arguments.workers} is no number of processes; it can be 1 or more')
    return arguments


def _options(arguments: argparse.Namespace) -> ReaderOptions:
    return ReaderOptions(arguments.classes, arguments.split, arguments.seed, arguments.votes)


def prepare(
    dataset: str,
    source: Path,
    output: Path,
    *,
    options: ReaderOptions | None = None,
    alignment: Alignment | None = None,
    workers: int = 1,
    overwrite: bool = False,
) -> None:
    """Reads a source, writes the prepared form aside and moves it to `output`; prints what it found.

    Raises:
        UserError: on an unknown data set, an unusable source, or an output that holds something else.
    """
    if dataset not in READERS:
        close = difflib.get_close_matches(dataset, READERS, 1)
        hint = f'did you mean {close[0]}? ' if close else ''
        raise UserError(f'--dataset={dataset} is not known; {hint}known: {", ".join(READERS)}')
    with READERS[dataset](source, options or ReaderOptions()) as opened:
        if opened.path.is_dir() and output.resolve().is_relative_to(opened.path.resolve()):
            raise UserError(f'--output={printable(output)} lies inside the source; choose another place')
        print(f'Found {opened.form}: {opened.total:,} examples')
        for remark in opened.remarks:
            print(f'Mind: {remark}')
        align = _make_aligner(alignment) if alignment else None
        settings = _settings(dataset, opened, options or ReaderOptions(), alignment)
        if _is_done(output, settings, overwrite):
            print(f'{printable(output)} holds it already')
            return
        listing = list_source(opened, lambda records: _progress(records, 'listing', opened.total))
        if not listing.candidates:
            raise _nothing_readable(opened, list(listing.rejects.values()))
        versions = {'fer_jax': fer_jax.__version__, 'pillow': PIL.__version__, 'shards': SHARD_FORMAT}
        pictures = f'pictures-{listing.key({**settings, **versions})}'
        with written_aside(output, overwrite=overwrite, keep=pictures) as aside:
            assembly = _make_pictures(opened, listing, aside / pictures, alignment, align, workers)
            made = store(opened, assembly, aside, settings, _progress)
            if align:
                _draw_alignment(opened, listing, align, aside / 'alignment.png')
    print('\n'.join(report_lines(made, assembly.rejects, opened.skipped)))
    print(f'Wrote {printable(output)}; look at overview.png there before training')


def _settings(dataset: str, source: Source, options: ReaderOptions, alignment: Alignment | None) -> dict[str, Any]:
    """What the output depends on, for the manifest."""
    digest, size = source.fingerprint()
    name = printable(source.path.resolve().name)
    about = {'name': name, 'form': source.form, 'sha256': digest, 'bytes': size}
    return {'source': about, **_chosen(dataset, options, alignment)}


def _chosen(dataset: str, options: ReaderOptions, alignment: Alignment | None) -> dict[str, Any]:
    votes = options.votes and printable(options.votes.name)
    landmarks = alignment and alignment.landmarks and printable(alignment.landmarks.name)
    return {
        'dataset': dataset,
        'options': {**dataclasses.asdict(options), 'split': list(options.split), 'votes': votes},
        'align': alignment and {**dataclasses.asdict(alignment), 'landmarks': landmarks},
    }


def _is_done(output: Path, settings: Mapping[str, Any], overwrite: bool) -> bool:
    """Whether `output` holds just this, whole; False where it is empty or may be replaced.

    Raises:
        UserError: where it holds something else, or is damaged, and must not be replaced.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    from fer_jax.data import prepared, stored  # tfds takes two seconds to import

    if not (output / prepared.MANIFEST).is_file():
        raise UserError(f'{printable(output)} is there and holds something else; choose another --output')
    if overwrite:
        return False
    earlier = prepared.read_manifest(output)
    if earlier['source'].get('sha256') != settings['source']['sha256']:
        raise UserError(
            f'{printable(output)} was prepared from another source ({earlier["source"].get("name")}); '
            'choose another --output or give --overwrite'
        )
    for name in ('dataset', 'options', 'align'):
        if earlier.get(name) != settings[name]:
            raise UserError(
                f'{printable(output)} was prepared with {name} {json.dumps(earlier.get(name))}; '
                'choose another --output or give --overwrite'
            )
    stored.load_prepared(output, lazy=True)
    return True


def _make_pictures(
    source: Source,
    listing: Listing,
    place: Path,
    alignment: Alignment | None,
    align: Callable | None,
    workers: int,
) -> Assembly:
    """Reads and encodes what an earlier run has not; `place` keeps it until all is done."""
    place.mkdir(exist_ok=True)
    plan = plan_shards(listing.candidates, place)
    if plan.done:
        print(f'Going on: {plan.done:,} of {len(listing.candidates):,} pictures are done already')
    with _progress(desc='pictures', total=len(listing.candidates), initial=plan.done) as bar:
        prepare_pictures(
            plan,
            image_shape=source.image_shape,
            align=align,
            keep_missing=alignment is None or alignment.missing == 'keep',
            workers=workers,
            progress=bar.update,
        )
    assembly = assemble(source, listing, place, plan.counts)
    if not assembly.splits:
        shutil.rmtree(place)
        raise _nothing_readable(source, assembly.rejects)
    return assembly


def _nothing_readable(source: Source, rejects: Sequence[Reject]) -> UserError:
    first = f'; the first: {rejects[0].location}: {rejects[0].reason}' if rejects else ''
    return UserError(f'{printable(source.path)} has no readable example ({len(rejects)} rejected{first})')


def _make_aligner(alignment: Alignment) -> Callable:
    from fer_jax.faces.align import make_aligner  # imports JAX

    return make_aligner(**dataclasses.asdict(alignment))


def _draw_alignment(source: Source, listing: Listing, align: Callable, path: Path) -> None:
    """Draws a few pictures, evenly over the data set, before and after."""
    from fer_jax.faces.draw import draw_alignment

    spread = np.linspace(0, len(listing.candidates) - 1, _SHOWN_ALIGNED).round().astype(int)
    images = []
    with PictureFiles() as files:
        for index in np.unique(spread):
            with contextlib.suppress(ValueError):  # a reject
                image, _ = read_face(listing.candidates[index], source.image_shape, files)
                images.append(made_smaller(image)[0])
    if images:
        draw_alignment(list(zip(images, align(images), strict=True)), path)


def _shares(text: str) -> tuple[float, ...]:
    """80/10/10 (or .8,.1,.1) to shares of train, validation and test."""
    try:
        values = [float(word) for word in text.replace('/', ',').split(',')]
    except ValueError:
        values = []
    total = 100 if sum(values) > 1.5 else 1
    if len(values) != 3 or min(values) < 0 or not abs(sum(values) / total - 1) < 1e-6:
        raise UserError(f'--split={text} is not three shares of train, validation and test, such as 80/10/10')
    return tuple(round(value / total, 9) for value in values)


def _alignment(arguments: argparse.Namespace) -> Alignment | None:
    flags = {'size': arguments.align_size, 'missing': arguments.align_missing, 'landmarks': arguments.align_landmarks}
    given = {name: value for name, value in flags.items() if value is not None}
    if arguments.align is None:
        if given:
            raise UserError(f'--align-{next(iter(given))} says how to align; give --align too')
        return None
    if not 16 <= given.get('size', Alignment.size) <= 1024:
        raise UserError(f'--align-size={given["size"]} is not a side in pixels from 16 to 1024')
    return Alignment(arguments.align, **given)


_progress = functools.partial(tqdm, file=sys.stderr, unit=' images', mininterval=0.5, leave=False)


if __name__ == '__main__':
    cli.run(main)
