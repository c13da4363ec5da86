"""Regularised evolution (Real, Aggarwal, Huang and Le, "Regularized Evolution for Image Classifier Architecture
Search", AAAI 2019, algorithm 1): the best of a few of the youngest trials gets a child with one parameter changed.

With several objectives the tournament is that of NSGA-II (Deb et al., 2002): the lower front wins, then the less
crowded place.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from assay.fronts import Scores, order
from assay.train.randomness import key
from assay.tune.algorithms import Proposal, Setting
from assay.tune.coding import Coding, Rows, names
from assay.tune.space import Values

TOURNAMENT = 0.25  # of the population: its 25 of 100
MUTATIONS = 50  # attempts at a new child before a random point is taken


class Evolution:
    """An `Algorithm`. It never proposes a point twice: a repeated training has the same result.

    Failed trials do not enter the population; trials that a scheduler stopped do, with their last scores.
    """

    def __init__(self, setting: Setting) -> None:
        self.seed = setting.seed
        self.coding = Coding(setting.space)
        self.population: deque[tuple[Rows, Scores]] = deque(maxlen=setting.search.population)
        self.beginning = setting.search.population  # trials at random
        self.tried: set[bytes] = set()
        self.running: dict[int, Rows] = {}
        self.own = self.coding.own(setting.start)  # the first trial, if the experiment is a point of the space

    def ask(self, ticket: int, given: Values | None = None) -> Proposal | None:
        row = self._chosen(ticket) if given is None else self.coding.encode(given)
        if row is None:
            return None
        self.running[ticket] = row
        self.tried.update(names(row[None]))
        return Proposal(self.coding.decode(row) if given is None else given)

    def report(self, ticket: int, epoch: float, score: float) -> None:
        """Nothing is learnt before the end."""

    def tell(self, ticket: int, scores: Scores | None, stopped: bool = False) -> None:  # noqa: ARG002
        row = self.running.pop(ticket)
        if scores is not None:
            self.population.append((row, scores))

    def _chosen(self, ticket: int) -> Rows | None:
        random = np.random.default_rng(key(self.seed, "evolution", ticket))
        if self.own is not None and not self.tried:
            return self.own
        if len(self.tried) >= self.beginning and self.population:
            child = self._parent(random)
            for _ in range(MUTATIONS):
                child = self.coding.mutated(child, random)  # of the last child, to get away from known points
                if names(child[None])[0] not in self.tried:
                    return child
        return self.coding.fresh(self.tried, random)

    def _parent(self, random: np.random.Generator) -> Rows:
        """The winner of a tournament."""
        size = min(max(2, round(TOURNAMENT * self.beginning)), len(self.population))
        chosen = random.permutation(len(self.population))[:size]
        scores = np.array([self.population[i][1] for i in chosen])
        return self.population[chosen[order(scores)[0]]][0]
