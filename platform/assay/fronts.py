"""Which of several results is better, by one objective or by several: the one place that decides it.

A search names its objectives as metrics with `max` or `min`. Their `gains` are numbers of which larger ones are
better, whichever way the metric goes; everything else compares gains, [N, objectives]. Of equal results the earlier
one wins.

Deb, Pratap, Agarwal and Meyarivan, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", 2002, section III:
the lower front goes first, and in a front the less crowded place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Scores = tuple[float, ...]
"""The gains of one result, a number for each objective; larger is better."""
Numbers = NDArray[np.float64]


def gains(metrics: Mapping[str, float], objectives: Mapping[str, str]) -> Scores | None:
    """The objectives of a result, larger is better; None if one is missing or not finite."""
    values = [metrics.get(metric, math.nan) for metric in objectives]
    if not all(math.isfinite(value) for value in values):
        return None
    return tuple(value if way == "max" else -value for value, way in zip(values, objectives.values(), strict=True))


def ranking(scores: Sequence[Scores]) -> list[int]:
    """The places of results, the best first by the first objective, of equal ones by the next."""
    if not scores:
        return []
    return [int(place) for place in np.lexsort(-np.array(scores, dtype=float).T[::-1])]


def front(scores: Sequence[Scores]) -> list[int]:
    """The places of the results that no other dominates (Pareto), in the order of `ranking`, each score once.

    With one objective: the place of the best.
    """
    if not scores:
        return []
    kept = _undominated(np.array(scores, dtype=float))
    first: dict[Scores, int] = {}
    for place in ranking(scores):
        if kept[place]:
            first.setdefault(tuple(scores[place]), place)
    return list(first.values())


def order(scores: Numbers) -> list[int]:
    """The places of scores [N, objectives], the best first: by front, in a front the least crowded first."""
    if scores.shape[1] == 1:
        return [int(place) for place in np.argsort(-scores[:, 0], kind="stable")]
    found: list[int] = []
    left = np.arange(len(scores))
    while len(left):
        best = _undominated(scores[left])
        apart = crowding(scores[left[best]])
        found += [int(place) for place in left[best][np.argsort(-apart, kind="stable")]]
        left = left[~best]
    return found


def crowding(scores: Numbers) -> Numbers:
    """How far the neighbours of each of scores [N, objectives] are apart, over all objectives; infinite at the ends."""
    distance = np.zeros(len(scores))
    for column in scores.T:
        order = np.argsort(column, kind="stable")
        distance[order[[0, -1]]] = np.inf
        width = column[order[-1]] - column[order[0]]
        if width > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / width
    return distance


def _undominated(scores: Numbers) -> NDArray[np.bool_]:
    """Which of scores [N, objectives] no other is better than in one objective and at least as good in all."""
    if scores.shape[1] == 1:
        best: NDArray[np.bool_] = scores[:, 0] == scores[:, 0].max(initial=-np.inf)
        return best
    others = scores[None]
    dominated = np.all(scores[:, None] <= others, axis=-1) & np.any(scores[:, None] < others, axis=-1)
    kept: NDArray[np.bool_] = ~np.any(dominated, axis=1)
    return kept
