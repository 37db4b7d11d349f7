"""Unpaired batches of two domains: two classes of one data set, each fed in an order of its own.

Either domain has the order of `fer_jax.data.feed.batch_indices` under its own seed, so that step N's batch is a pure
function of seed and N for both, and no image keeps meeting the same one of the other domain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Array

from fer_jax.data.dataset import Dataset, Split, class_counts
from fer_jax.data.feed import Feed
from fer_jax.errors import UserError

DOMAINS = ('a', 'b')


class PairFeed:
    """A `Feed` of two domains: `images_a` and `images_b`, uint8 [T, B, H, W, C] each."""

    def __init__(self, splits: Sequence[Split], seed: int, make_feed: Callable[[Split, int], Feed]):
        """Makes a feed for either domain.

        Args:
            splits: of domain a and of domain b.
            seed: of the run.
            make_feed: from a split and its seed to a resident or a streaming feed.
        """
        self._feeds: dict[str, Feed] = {}
        try:
            for domain, (name, split) in enumerate(zip(DOMAINS, splits, strict=True)):
                self._feeds[name] = make_feed(split, domain_seed(seed, domain))
        except BaseException:
            self.close()
            raise

    @property
    def waited(self) -> float | None:
        """See `Feed`."""
        waits = [feed.waited for feed in self._feeds.values()]
        return None if None in waits else sum(waits)

    def batches(self, step: int, count: int, is_idle: Callable[[], bool] = lambda: True) -> dict[str, Array]:
        """See `Feed`; labels are left out."""
        return {f'images_{name}': feed.batches(step, count, is_idle)['images'] for name, feed in self._feeds.items()}

    def close(self) -> None:
        """See `Feed`."""
        for feed in self._feeds.values():
            feed.close()


def domain_seed(seed: int, domain: int) -> int:
    """The seed of a domain's order: under one seed, classes of one size would meet in the same pairs every epoch."""
    return int(np.random.SeedSequence([seed, domain]).generate_state(1)[0])


def select_pair(dataset: Dataset, pair: Sequence[str], split: str = 'train') -> tuple[Split, Split]:
    """The images of two classes of a split.

    Args:
        pair: the names of two classes, such as `('neutral', 'happiness')`.

    Raises:
        UserError: if the pair is not two classes of the data set, or one has no images in this split.
    """
    names = ', '.join(dataset.class_names)
    if len(pair) != 2 or pair[0] == pair[1]:
        raise UserError(
            f'config.pair is {", ".join(pair) or "empty"}; two different classes are wanted, out of {names}'
        )
    for name in pair:
        if name not in dataset.class_names:
            raise UserError(f'config.pair names {name!r}, which {dataset.name} does not have; its classes: {names}')
    if split not in dataset.splits:
        raise UserError(f'{dataset.name} has no {split} split; it has {", ".join(dataset.splits)}')
    examples = dataset.splits[split]
    counts = class_counts(examples.labels, dataset.class_names)
    for name in pair:
        if not counts[name]:
            there = ', '.join(f'{other} {count}' for other, count in counts.items() if count)
            raise UserError(f'{dataset.name} has no {split} images of {name}; it has {there or "none at all"}')
    first, second = (examples.select(examples.labels == dataset.class_names.index(name)) for name in pair)
    return first, second
