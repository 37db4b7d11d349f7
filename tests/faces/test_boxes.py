import numpy as np
import pytest

from fer_jax.faces.boxes import keep_best, moved, squares


def slow(boxes, scores, groups, threshold, at_least, by_smaller):
    """Greedy suppression as its definition reads, one pair after the other."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: (groups[i], -scores[i])):
        if scores[i] < at_least:
            continue
        for j in kept:
            width = min(boxes[i][2], boxes[j][2]) - max(boxes[i][0], boxes[j][0])
            height = min(boxes[i][3], boxes[j][3]) - max(boxes[i][1], boxes[j][1])
            shared = max(width, 0) * max(height, 0)
            a, b = ((box[2] - box[0]) * (box[3] - box[1]) for box in (boxes[i], boxes[j]))
            if groups[i] == groups[j] and shared > threshold * (min(a, b) if by_smaller else a + b - shared):
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize('by_smaller', [False, True])
@pytest.mark.parametrize('count', [0, 1, 150])
def test_keep_best_equals_the_definition(count, by_smaller):
    random = np.random.default_rng(count)
    corners = random.uniform(0, 60, (count, 2))
    boxes = np.concatenate([corners, corners + random.uniform(5, 40, (count, 2))], 1)
    scores, groups = random.permutation(count) / max(count, 1), random.integers(0, 4, count)
    kept = keep_best(boxes, scores, groups, 0.5, at_least=0.1, by_smaller=by_smaller)
    assert kept.dtype == int
    assert kept.tolist() == slow(boxes, scores, groups, 0.5, 0.1, by_smaller)
    assert count < 150 or 20 < len(kept) < 120


def test_a_face_within_a_face_goes_only_by_the_smaller():
    boxes, scores, groups = np.array([(0, 0, 10, 10), (2, 2, 6, 6.0)]), np.array([0.9, 0.8]), np.zeros(2, int)
    assert keep_best(boxes, scores, groups, 0.7).tolist() == [0, 1]  # 16 of 100 shared
    assert keep_best(boxes, scores, groups, 0.7, by_smaller=True).tolist() == [0]


def test_moved_and_squares_by_hand():
    box = np.array([(10, 20, 30, 60.0)])
    np.testing.assert_allclose(moved(box, np.array([(0.1, 0.25, -0.5, 0.05)])), [(12, 30, 20, 62)])
    np.testing.assert_allclose(squares(box), [(0, 20, 40, 60)])
