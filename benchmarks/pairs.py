"""Rates measured in turn, again and again, so that what else the machine does meets all alike."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence


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
    return f'{ours:,.0f} | {theirs:,.0f} | {_spread([one / two for one, two in pairs])}'


@dataclasses.dataclass(frozen=True)
class Rates:
    """Units per second, turn by turn, of each of several runs."""

    found: Mapping[str, Sequence[float]]

    def median(self, name: str) -> float:
        """Of a run's turns."""
        return statistics.median(self.found[name])

    def fastest(self, among: Sequence[str]) -> str:
        """The one with the highest median."""
        return max(among, key=self.median)

    def ratio(self, one: str, other: str) -> str:
        """Median, least and largest of the turns' ratios."""
        return _spread([first / second for first, second in zip(self.found[one], self.found[other], strict=True)])


def measure(runs: Mapping[str, Callable[[int], object]], units: float, seconds: float, turns: int) -> Rates:
    """Lets all run in turn; who begins goes round.

    Args:
        runs: `run(count)` does its work `count` times and returns when it is done. Each has run before.
        units: of one time.
        seconds: of a turn, about; once at least.
        turns: of each.
    """
    counts = {name: _count(run, seconds) for name, run in runs.items()}
    found: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(turns):
        first = turn % len(runs)
        for name in [*runs][first:] + [*runs][:first]:
            found[name].append(units * counts[name] / spent(runs[name], counts[name]))
    return Rates(found)


def _count(run: Callable[[int], object], seconds: float) -> int:
    """How often it runs in so many seconds, by a run of an eighth of them or more."""
    count, took = 1, spent(run, 1)
    while took < seconds / 8:
        count *= 4
        took = spent(run, count)
    return max(1, round(seconds * count / took))


def spent(run: Callable[[int], object], count: int) -> float:
    """The seconds that `run(count)` takes."""
    start = time.perf_counter()
    run(count)
    return time.perf_counter() - start


def _spread(ratios: Sequence[float]) -> str:
    return f'{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})'
