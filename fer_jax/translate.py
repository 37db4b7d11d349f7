"""`python -m fer_jax.translate`: new training images by CycleGAN pairs, and the CSV by which training adds them.

    python -m fer_jax.translate --run=DIR[,DIR…] --to=EMOTION[,EMOTION…] --count=N --output=DIR
    python -m fer_jax.translate --copies-of=OUTPUT/translations.csv --output=DIR

Only images of the training split are translated, that of the data which the pairs were trained on, and none twice in
the same way. They are spread evenly over the pairs, and chosen by the SHA-256 of seed and id: a pure function of the
data, the pairs and the flags. With --copies-of the new images are augmented copies instead, as many of each emotion as
that CSV has: what the translations must be compared with. A killed command goes on where it was, to the same bytes.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from fer_jax import cli, experiment, run_json, runtime
from fer_jax.config import set_field
from fer_jax.data.aside import written_aside
from fer_jax.data.augment import Augmentation, augment
from fer_jax.data.dataset import Dataset
from fer_jax.data.derived import Part, Way, count_labels, picture_path, plan_copies, plan_translations, write_csv
from fer_jax.data.deriving import derive_images
from fer_jax.errors import UserError
from fer_jax.reports.translations import translations_grid
from fer_jax.translators import find_pairs, load_translators

CSV, MANIFEST = 'translations.csv', 'translations.json'
_UNFINISHED = 'unfinished'
# Seed 001's augmentation; its shear of .15 is in degrees.
_COPY = Augmentation(flip=True, rotate=15.0, shift=0.15, shear=0.15, zoom=0.15)
_SHOWN = 8  # faces of each pair in the picture

Make = Callable[[Part, int, np.ndarray], np.ndarray]


def main(argv: list[str] | None = None) -> int:
    """Parses the flags and translates; see the module."""
    flags = _parse(argv)
    runtime.configure()
    if flags.copies_of:
        dataset, parts, make, settings = _copies(flags)
    else:
        dataset, parts, make, settings = _translations(flags)
    settings['images'] = _plan_hash(parts, dataset.splits['train'].ids)
    if not _is_there(flags.output, settings):
        _derive(flags.output, dataset, parts, make, settings)
    print(f'{flags.output / CSV}: {sum(len(part.rows) for part in parts):,} images; {flags.output / MANIFEST}')
    print(f'train with them: --config.data.extra={flags.output / CSV}   pictures: {flags.output / "figures"}')
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = cli.ArgumentParser(prog='fer_jax.translate', description=__doc__)
    add = parser.add_argument
    add('--run', default='', metavar='DIR[,DIR…]', help='pairs: their workdirs, or directories of several')
    add('--to', default='', metavar='EMOTION[,…]', help='what the new images show')
    add('--from', default='', dest='sources', metavar='EMOTION[,…]', help='of which images; default: any with a pair')
    add('--count', type=int, default=0, metavar='N', help='how many in all; the seed had 18000')
    add('--exclude', default='', metavar='CSV[,CSV…]', help='audits whose flagged images are not used')
    add('--copies-of', default='', metavar='CSV', help='write augmented copies instead, as many as this CSV has')
    add('--seed', type=int, default=0, help='of the choice of images, and of the augmentation')
    add('--batch-size', type=int, default=256, metavar='N', help='images that the device makes copies of at a time')
    add('--output', type=Path, required=True, metavar='DIR', help='where images, CSV, manifest and pictures go')
    flags = parser.parse_args(argv)
    if flags.batch_size < 1:
        raise UserError(f'--batch-size={flags.batch_size}: a number of images is wanted, 1 or more')
    if flags.copies_of:
        for name in ('run', 'to', 'sources', 'count'):
            if getattr(flags, name):
                word = {'sources': 'from'}.get(name, name)
                raise UserError(f'--{word} has no meaning with --copies-of, whose CSV says how many of which emotion')
        return flags
    for name, words in (('run', 'workdirs of pairs'), ('to', 'emotions to translate to')):
        if not getattr(flags, name) or not all(getattr(flags, name).split(',')):
            raise UserError(f'--{name}={getattr(flags, name)}: {words} are wanted, with commas between')
    if flags.count < 1:
        raise UserError(f'--count={flags.count}: how many images to make is wanted, 1 or more')
    return flags


def _translations(flags: argparse.Namespace) -> tuple[Dataset, list[Part], Make, dict[str, Any]]:
    """The data, the plan, the function that makes images, and what all that depends on."""
    translators = load_translators(find_pairs(flags.run.split(',')))
    chosen = _choose(translators, flags.to.split(','), [name for name in flags.sources.split(',') if name])
    first = translators[chosen[0]]
    dataset = _load_data([translators[way].workdir for way in chosen], flags.exclude)
    ways = [Way(*way, translators[way].workdir, translators[way].step) for way in chosen]
    parts = plan_translations(dataset.splits['train'], dataset.class_names, ways, flags.count, flags.seed)
    for way in chosen:
        there, wanted = (translators[way].size, translators[way].channels), (first.size, first.channels)
        if there != wanted:
            raise UserError(
                f'{translators[way].workdir} makes images of side and channels {there}, {first.workdir} {wanted}; '
                'one CSV has images of one kind'
            )
    settings = {
        'made_by': 'translation',
        'data': dataset.manifest_hash,
        'seed': flags.seed,
        'exclude': _hashes(flags.exclude),
        'pairs': {f'{way.source}_to_{way.target}': _identity(way) for way in ways},
    }
    return dataset, parts, lambda part, _, images: translators[part.source_label, part.label](images), settings


def _copies(flags: argparse.Namespace) -> tuple[Dataset, list[Part], Make, dict[str, Any]]:
    """As `_translations`; the data is that of the pairs which made the CSV."""
    counts = count_labels(flags.copies_of)
    manifest = Path(flags.copies_of).with_name(MANIFEST)
    try:
        made = json.loads(manifest.read_text(encoding='utf-8'))
        runs = list(dict.fromkeys(pair['run'] for pair in made['settings']['pairs'].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f'{manifest} does not say which pairs made {flags.copies_of}; `translate` writes both'
        ) from None
    dataset = _load_data(runs, flags.exclude)
    parts = plan_copies(dataset.splits['train'], dataset.class_names, counts, flags.seed)
    settings = {
        'made_by': 'augmentation',
        'data': dataset.manifest_hash,
        'seed': flags.seed,
        'exclude': _hashes(flags.exclude),
        'copies_of': _file_hash(flags.copies_of),
        'batch_size': flags.batch_size,
    }
    return dataset, parts, _make_copies(parts, flags.seed, flags.batch_size), settings


def _make_copies(parts: Sequence[Part], seed: int, batch_size: int) -> Make:
    """Augments in batches of one size, the last one padded; every batch draws by its place in the plan."""
    numbers = {part.name: number for number, part in enumerate(parts)}
    program = jax.jit(lambda key, images: jnp.clip(jnp.round(augment(key, images, _COPY)), 0, 255).astype(jnp.uint8))

    def make(part: Part, start: int, images_NHWC: np.ndarray) -> np.ndarray:
        key, made = jax.random.fold_in(jax.random.key(seed), numbers[part.name]), []
        for first in range(0, len(images_NHWC), batch_size):
            batch = images_NHWC[first : first + batch_size]
            padded = np.concatenate([batch, np.zeros((batch_size - len(batch), *batch.shape[1:]), np.uint8)])
            made.append(np.asarray(program(jax.random.fold_in(key, start + first), padded))[: len(batch)])
        return np.concatenate(made)

    return make


def _choose(translators: Mapping[tuple[str, str], Any], targets: Sequence[str], sources: Sequence[str]) -> list:
    """The ways that the flags leave, in alphabetical order."""
    for flag, names, place in (('to', targets, 1), ('from', sources, 0)):
        known = sorted({way[place] for way in translators})
        for name in names:
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                hint = f'; did you mean {close[0]}?' if close else f'; there are pairs for {", ".join(known)}'
                raise UserError(f'--{flag}={name}: no pair translates {flag} that{hint}')
    chosen = sorted(way for way in translators if way[1] in targets and (not sources or way[0] in sources))
    if not chosen:
        have = ', '.join(f'{source} to {target}' for source, target in sorted(translators))
        raise UserError(f'no pair goes from {", ".join(sources)} to {", ".join(targets)}; there are {have}')
    return chosen


def _load_data(workdirs: Sequence[str], exclude: str) -> Dataset:
    """The data of the pairs, less what the audits flag in its training split."""
    configs = [run_json.read_run(workdir).config for workdir in workdirs]
    for workdir, config in zip(workdirs, configs, strict=True):
        if config.data != configs[0].data:
            raise UserError(f'{workdir} and {workdirs[0]} were trained on different data; translate with each apart')
    config = ConfigDict(configs[0].to_dict())
    if exclude:
        set_field(config, 'data.exclude', (*config.data.exclude, *exclude.split(',')))
    return experiment.load_data(config)


def _identity(way: Way) -> dict[str, Any]:
    """What tells a pair's checkpoint from any other one."""
    sums = os.path.join(way.run, 'checkpoints', str(way.step), 'checksums.json')
    return {'run': way.run, 'step': way.step, 'checkpoint': _file_hash(sums)}


def _hashes(paths: str) -> dict[str, str]:
    return {path: _file_hash(path) for path in paths.split(',') if path}


def _file_hash(path: str) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()[:16]


def _plan_hash(parts: Sequence[Part], ids: np.ndarray) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update('\n'.join([part.name, *ids[part.rows]]).encode() + b'\0' + part.steps.tobytes())
    return digest.hexdigest()[:16]


def _is_there(output: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the output is finished already.

    Raises:
        UserError: if something else lies there.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        try:
            there = json.loads((output / MANIFEST).read_text(encoding='utf-8'))['settings']
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f'--output={output} is there already and no work of this command; choose another') from None
        for name in {**there, **settings}:
            if there.get(name) != settings.get(name):
                raise UserError(
                    f'{output} was made with {name} {json.dumps(there.get(name))}, and now it would be '
                    f'{json.dumps(settings.get(name))}; choose another --output, or move that away'
                )
        return True
    return False


def _derive(output: Path, dataset: Dataset, parts: Sequence[Part], make: Make, settings: dict[str, Any]) -> None:
    train = dataset.splits['train']
    with written_aside(output, keep=_UNFINISHED) as aside:
        work = aside / _UNFINISHED
        _begin(work, settings)
        digests = derive_images(parts, train.images, make, work, output.name)
        _draw(aside / 'figures', work, parts, train.images)
        (work / 'images').rename(aside / 'images')
        write_csv(aside / CSV, parts, train.ids, digests)
        described = {
            'count': sum(len(part.rows) for part in parts),
            'size_and_channels': list(train.images.shape[2:]),
            'parts': [
                {
                    'name': part.name,
                    'label': part.label,
                    'source_label': part.source_label,
                    'images': len(part.rows),
                    'sources_available': part.available,
                    'images_sha256': hashlib.sha256('\n'.join(digests[part.name]).encode()).hexdigest(),
                }
                for part in parts
            ],
            'csv_sha256': hashlib.sha256((aside / CSV).read_bytes()).hexdigest(),
            'settings': settings,
        }
        run_json.write_json(str(aside / MANIFEST), described | _how(dataset))


def _how(dataset: Dataset) -> dict[str, Any]:
    description = run_json.describe(None, dataset)
    return {name: description[name] for name in ('command', 'versions', 'devices', 'git_revision')}


def _begin(work: Path, settings: Mapping[str, Any]) -> None:
    """Keeps what a killed command of these settings has made, and removes what one of others has."""
    path = work / 'settings.json'
    wanted = json.dumps(settings, indent=2)
    if work.exists() and not (path.exists() and path.read_text() == wanted):
        print(f'{work}: unfinished work of other settings is removed', file=sys.stderr)
        shutil.rmtree(work)
    work.mkdir(exist_ok=True)
    path.write_text(wanted)


def _draw(folder: Path, work: Path, parts: Sequence[Part], images_NHWC: np.ndarray) -> None:
    """One picture per emotion: some originals of each pair over what they became."""
    for label in dict.fromkeys(part.label for part in parts if len(part.rows)):
        rows = []
        for part in parts:
            if part.label == label and len(part.rows):
                paths = [work / picture_path(part.name, number) for number in range(min(_SHOWN, len(part.rows)))]
                new = np.stack([np.asarray(Image.open(path)) for path in paths])
                rows.append((part.source_label, images_NHWC[part.rows[: len(paths)]], new))
        copies = not parts[0].run
        title = f'Augmented copies of {label}' if copies else f'Translated to {label}'
        subtitle = 'training images above, what they became below; the first ones of each, not chosen by eye'
        translations_grid(rows, label, folder / f'{"copies" if copies else "to"}_{label}.png', title, subtitle)


if __name__ == '__main__':
    cli.run(main)
