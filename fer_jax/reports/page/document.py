"""The whole page: its sections in order, its navigation, its style sheet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from fer_jax.errors import UserError
from fer_jax.reports.page.calibration import calibration_section
from fer_jax.reports.page.changes import changes_section
from fer_jax.reports.page.curves import curves_section
from fer_jax.reports.page.elements import Element, tag, to_html
from fer_jax.reports.page.facts import facts_section
from fer_jax.reports.page.mistakes import mistakes_section
from fer_jax.reports.page.pairs import pairs_section
from fer_jax.reports.page.scores import badge, classes_section, confusion_section, scores_section
from fer_jax.reports.page.workdirs import Workdir

MOST = 12  # workdirs, beyond which neither colours nor columns can be told apart
_MADE_BY = 'fer_jax.report'
_SECTIONS = (
    *(scores_section, facts_section, curves_section, classes_section, confusion_section, calibration_section),
    *(changes_section, mistakes_section, pairs_section),
)
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def refuse_other_file(path: Path) -> None:
    """Refuses to write over what is not a page of this command.

    Raises:
        UserError: if a directory or another file is there.
    """
    if path.is_dir():
        raise UserError(f'--output={path} is a directory; a file is wanted, such as {path / "report.html"}')
    if path.exists() and f'content="{_MADE_BY}"'.encode() not in path.read_bytes()[:2000]:
        raise UserError(f'--output={path} is there already, and is no page of this command; choose another')


def write_page(path: Path, workdirs: Sequence[Workdir]) -> None:
    """Writes the page, aside first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + '.partial')
    # Names of files may hold bytes that are no text.
    aside.write_text(to_html(_document(workdirs)), encoding='utf-8', errors='replace')
    os.replace(aside, path)


def _document(workdirs: Sequence[Workdir]) -> Element:
    sections = [found for make in _SECTIONS if (found := make(workdirs)) is not None]
    names = [f'{workdir.letter} {workdir.name}' for workdir in workdirs]
    title = 'fer_jax: ' + (workdirs[0].name if len(workdirs) == 1 else ', '.join(names))
    links = [tag('li', tag('a', found[0].text, href=f'#{found.get("id")}')) for found in sections]
    head = tag(
        'head',
        tag('meta', charset='utf-8'),
        tag('meta', name='viewport', content='width=device-width, initial-scale=1'),
        _meta('Content-Security-Policy', _POLICY),
        tag('meta', name='generator', content=_MADE_BY),
        tag('title', title),
        tag('style', resources.files(__package__).joinpath('page.css').read_text(encoding='utf-8')),
    )
    body = tag(
        'body',
        tag('a', 'To the content', href='#content', class_='skip'),
        tag('header', tag('h1', _heading(workdirs)), tag('p', _about(workdirs), class_='muted')),
        tag('nav', tag('ul', links), aria_label='Sections'),
        tag('main', sections, id='content', tabindex='-1'),
    )
    return tag('html', head, body, lang='en')


def _meta(name: str, content: str) -> Element:
    made = tag('meta', content=content)
    made.set('http-equiv', name)
    return made


def _heading(workdirs: Sequence[Workdir]) -> list[str | Element]:
    if len(workdirs) == 1:
        return [workdirs[0].name]
    return [tag('span', badge(workdir, index), f' {workdir.name} ') for index, workdir in enumerate(workdirs)]


def _about(workdirs: Sequence[Workdir]) -> str:
    scored = [workdir for workdir in workdirs if workdir.entry]
    if not scored:
        return 'Nothing has been scored here yet.'
    sizes = dict.fromkeys(
        f'{workdir.entry["dataset"]}, {workdir.split}: {workdir.entry["num_examples"]:,} images, '
        f'{len(workdir.entry["class_names"])} classes'
        for workdir in scored
    )
    return '; '.join(sizes) + '. Made from files that were there: no split was scored for this page.'
