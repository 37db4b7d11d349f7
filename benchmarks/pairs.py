"""Two rates measured in turn, again and again, so that what else the machine does meets both alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence


def in_turn(ours: Callable[[], float], theirs: Callable[[], float], pairs: int) -> list[tuple[float, float]]:
    """What both return, `pairs` times; who goes first alternates."""
    found = []
    for pair in range(pairs):
        first, second = (ours, theirs) if pair % 2 == 0 else (theirs, ours)
        one, two = first(), second()
        found.append((one, two) if pair % 2 == 0 else (two, one))
    return found


def cells(pairs: Sequence[tuple[float, float]]) -> str:
    """Of a table's row: the median of each side, and the median, least and largest of the pairs' ratios."""
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = sorted(one / two for one, two in pairs)
    return f'{ours:,.0f} | {theirs:,.0f} | {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})'
