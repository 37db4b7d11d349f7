"""HTML and SVG as trees: text can only become text, so that no name of a class or a file can become markup."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element, tostring

Child = str | Element | None | Iterable['Child']

__all__ = ['Element', 'scrolling', 'section', 'table', 'tag', 'titled_by', 'to_html']


def tag(name: str, /, *children: Child, **attributes: object) -> Element:
    """An element; `class_` stands for class, `aria_label` for aria-label; attributes that are None are left out."""
    told = {key.rstrip('_').replace('_', '-'): str(value) for key, value in attributes.items() if value is not None}
    made = Element(name, told)
    _append(made, children)
    return made


def _append(parent: Element, children: Iterable[Child]) -> None:
    for child in children:
        if isinstance(child, str):
            if len(parent):
                parent[-1].tail = (parent[-1].tail or '') + child
            else:
                parent.text = (parent.text or '') + child
        elif isinstance(child, Element):
            parent.append(copy.copy(child))  # one and the same in two places would share the text after it
        elif child is not None:
            _append(parent, child)


def to_html(root: Element) -> str:
    """A whole document."""
    return '<!doctype html>\n' + tostring(root, encoding='unicode', method='html') + '\n'


def section(name: str, title: str, *children: Child) -> Element:
    """A part of the page that its navigation leads to."""
    heading = tag('h2', title, id=f'{name}-title')
    return tag('section', heading, *children, id=name, aria_labelledby=f'{name}-title')


def titled_by(words: str) -> Element:
    """The caption of a table, which stays in sight when the table is scrolled."""
    return tag('caption', tag('span', words))


def scrolling(label: str, child: Element) -> Element:
    """A box that wide content scrolls in, by keyboard too."""
    return tag('div', child, class_='scrolling', role='region', aria_label=label, tabindex='0')


def table(
    caption: str,
    header: Sequence[Child],
    rows: Iterable[Sequence[Child]],
    *,
    numbers: Iterable[int] = (),
    groups: Sequence[tuple[Child, int]] = (),
) -> Element:
    """A table in a box of its own; the first cell of a row is its header.

    Args:
        caption: for all.
        numbers: the columns that are aligned to the right.
        groups: headers above the columns, and how many of them each spans.
    """
    numbers = set(numbers)
    kind = lambda column: 'number' if column in numbers else None
    lines = [[tag('th', cell, scope='col', class_=kind(column)) for column, cell in enumerate(header)]]
    if groups:
        lines.insert(0, [tag('th', cell, colspan=span, scope='colgroup', class_='group') for cell, span in groups])
    body = [
        tag(
            'tr',
            tag('th', cells[0], scope='row'),
            [tag('td', cell, class_=kind(column)) for column, cell in enumerate(cells[1:], 1)],
        )
        for cells in rows
    ]
    made = tag('table', titled_by(caption), tag('thead', [tag('tr', line) for line in lines]), tag('tbody', body))
    return scrolling(caption, made)
