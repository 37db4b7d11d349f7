"""Pairs of translators: which checkpoint was chosen, what it scored, and what it makes of faces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from fer_jax.reports.page.charts import plain
from fer_jax.reports.page.curves import pair_curves
from fer_jax.reports.page.elements import Element, section, table, tag
from fer_jax.reports.page.faces import data_url
from fer_jax.reports.page.scores import titled
from fer_jax.reports.page.workdirs import Workdir

_WIDEST = 1600  # pixels of a sheet of samples


def pairs_section(workdirs: Sequence[Workdir]) -> Element | None:
    """The pairs among the workdirs; None where there are none."""
    pairs = [(index, workdir) for index, workdir in enumerate(workdirs) if workdir.kind == 'pair']
    if not pairs:
        return None
    parts = [pair_curves(pairs), *(_pair(workdir, index) for index, workdir in pairs)]
    words = 'A pair classifies nothing: it has no place in the other sections.'
    return section('pairs', 'Pairs', tag('p', words, class_='muted'), parts)


def _pair(workdir: Workdir, index: int) -> list[Element | None]:
    parts: list[Element | None] = [titled(workdir, index)]
    if workdir.pair:
        emotions = ' and '.join(map(str, workdir.pair.get('pair') or ()))
        step, rule = workdir.pair.get('step'), workdir.pair.get('chosen_by')
        chosen = f'{emotions}: step {step} is the one to translate with ({rule}).'
        metrics = workdir.pair.get('metrics')
        rows = [
            [name.removeprefix('validation/'), plain(value)]
            for name, value in (metrics.items() if isinstance(metrics, dict) else ())
            if isinstance(value, int | float)
        ]
        parts += [tag('p', chosen), table(f'{emotions} on validation', ['measure', 'value'], rows, numbers=(1,))]
    return [*parts, _sheet(workdir)]


def _sheet(workdir: Workdir) -> Element | None:
    """The samples of the chosen step, or of the last one there are."""
    found = {}
    for path in (workdir.directory / 'figures').glob('samples_*.png'):
        if number := re.fullmatch(r'samples_(\d+)', path.stem):
            found[int(number[1])] = path
    if not found:
        return tag('p', 'It has drawn no samples.')
    chosen = (workdir.pair or {}).get('step')
    step = chosen if chosen in found else max(found)
    alt = f'Faces, translated, and translated back, in both directions, after {step:,} steps'
    return tag('figure', _picture(found[step], alt), tag('figcaption', alt), class_='sheet')


def _picture(path: Path, alt: str) -> Element:
    try:
        with Image.open(path) as opened:
            sheet = opened.convert('RGB')
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        return tag('p', f'{path.name} is damaged ({error}).', class_='notes')
    sheet.thumbnail((_WIDEST, 10 * _WIDEST))
    return tag('img', src=data_url(sheet, 'JPEG'), alt=alt)
