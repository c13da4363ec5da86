"""Which of several results are better, by one objective or by several. Larger is better.

Deb, Pratap, Agarwal and Meyarivan, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", 2002, section III:
the lower front goes first, and in a front the less crowded place.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def order(scores: Numbers) -> list[int]:
    """The places of scores [N, objectives], the best first; of equal ones the earlier."""
    if scores.shape[1] == 1:
        return [int(place) for place in np.argsort(-scores[:, 0], kind="stable")]
    found: list[int] = []
    left = np.arange(len(scores))
    while len(left):
        front = _front(scores[left])
        apart = crowding(scores[left[front]])
        found += [int(place) for place in left[front][np.argsort(-apart, kind="stable")]]
        left = left[~front]
    return found


def _front(scores: Numbers) -> NDArray[np.bool_]:
    """Which of scores [N, objectives] no other dominates."""
    others = scores[None]
    dominated = np.all(scores[:, None] <= others, axis=-1) & np.any(scores[:, None] < others, axis=-1)
    front: NDArray[np.bool_] = ~np.any(dominated, axis=1)
    return front


def crowding(scores: Numbers) -> Numbers:
    """How far the neighbours of each are apart, over all objectives; infinite at the ends."""
    distance = np.zeros(len(scores))
    for column in scores.T:
        order = np.argsort(column, kind="stable")
        distance[order[[0, -1]]] = np.inf
        width = column[order[-1]] - column[order[0]]
        if width > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / width
    return distance
