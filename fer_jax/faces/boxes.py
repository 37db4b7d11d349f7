"""Boxes as rows (left, top, right, bottom), in pixels from the picture's left upper corner."""

from __future__ import annotations

import numpy as np


def keep_best(
    boxes: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    threshold: float,
    *,
    at_least: float = 0,
    by_smaller: bool = False,
) -> np.ndarray:
    """Indices of the boxes that greedy non-maximum suppression keeps, group by group, the best of a group first.

    Args:
        boxes: float [N, 4].
        scores: float [N].
        groups: int [N]; boxes of different groups do not see each other.
        threshold: a box goes if it shares more than this with a better one that stays.
        at_least: boxes of lower scores are left out.
        by_smaller: the share is of the smaller box, not of the union; so a face within a face goes.
    """
    order = np.lexsort((-scores, groups))
    order = order[scores[order] >= at_least]
    kept = [
        _keep_best_of_one(boxes[part], part, threshold, by_smaller)
        for part in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    ]
    return np.concatenate(kept)


def _keep_best_of_one(boxes: np.ndarray, order: np.ndarray, threshold: float, by_smaller: bool) -> np.ndarray:
    kept, areas = [], _areas(boxes)
    while len(order):
        kept.append(order[0])
        low, high = np.maximum(boxes[0, :2], boxes[:, :2]), np.minimum(boxes[0, 2:], boxes[:, 2:])
        shared = _areas(np.concatenate([low, high], 1))
        whole = np.minimum(areas[0], areas) if by_smaller else areas[0] + areas - shared
        apart = shared <= threshold * whole
        apart[0] = False
        order, boxes, areas = order[apart], boxes[apart], areas[apart]
    return np.array(kept, int)


def _areas(boxes: np.ndarray) -> np.ndarray:
    width, height = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).T
    return width * height


def moved(boxes: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Every edge moved by its share [N, 4] of the box's width or height."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return boxes + edges * np.concatenate([sides, sides], 1)


def squares(boxes: np.ndarray) -> np.ndarray:
    """The squares about the boxes' centres whose side is the longer one."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    halves = np.max(boxes[:, 2:] - boxes[:, :2], axis=1, keepdims=True) / 2
    return np.concatenate([centres - halves, centres + halves], 1)
