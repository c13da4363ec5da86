"""Local search led by a model of the results so far: Assay's own, mainly for architectures.

The neighbours of the best points, one parameter changed, are good candidates in spaces of networks (White, Nolen and
Savani, "Exploring the Loss Landscape in Neural Architecture Search", UAI 2021); training them all wastes trials. Here a
Gaussian process ranks them by an upper confidence bound (Srinivas et al., ICML 2010), and the search walks on from the
most promising ones without training them. If results do not improve for a while, it starts again elsewhere, with a
model of the new results alone; one trial in five still continues from all results. With several
objectives each trial draws weights for them (Knowles, "ParEGO", 2006) and is chosen by the weakest weighted bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata
from threadpoolctl import ThreadpoolController

from assay.fronts import Scores
from assay.train.randomness import key
from assay.tune.algorithms import Proposal, Setting
from assay.tune.algorithms.surrogate import Numbers, Surrogate
from assay.tune.coding import Coding, Rows, names
from assay.tune.space import Values

DESIGN = 10  # trials that spread over the space before the model is used
ENOUGH = 3  # results to learn from
STALE = 20  # results in a row without improvement, after which the search starts elsewhere
OVERALL = 5  # one in this many trials continues from the results of all starts
BOUNDS = (0.5, 1.0, 2.0, 3.0)  # deviations above the mean, in turn: some trials improve, others explore
BEST = 5  # points whose neighbours are candidates
WALKS = 2  # steps from there to the neighbours of the best candidates
RANDOM = 100  # candidates from anywhere
LEARNT = 300  # most results to learn from: half the best, half the last
ABOVE = 5.0  # lifts the normal scores of this many results above 0


@dataclass(frozen=True)
class Result:
    row: Rows
    scores: Scores | None  # None: failed
    whole: bool  # trained to its end
    start: int  # the number of its start; -1: none


class LocalSearch:
    """An `Algorithm`. It never proposes a point twice; running trials are assumed to reach what the model expects."""

    def __init__(self, setting: Setting) -> None:
        self.seed, self.objectives = setting.seed, setting.objectives
        self.coding = Coding(setting.space)
        self.threads = ThreadpoolController()
        self.tried: set[bytes] = set()
        self.running: dict[int, tuple[Rows, int]] = {}  # with the number of its start
        self.results: list[Result] = []
        self.overall = self._untaught()
        self.start, self.stale = 0, 0
        self.design: list[Rows] = []
        self._start(0)
        own = self.coding.own(setting.start)
        self.design[:0] = [] if own is None else [own]  # the experiment itself comes first

    def ask(self, ticket: int, given: Values | None = None) -> Proposal | None:
        overall = self.start > 0 and not self.design and ticket % OVERALL == 0
        row = self._chosen(ticket, overall) if given is None else self.coding.encode(given)
        if row is None:
            return None
        self.running[ticket] = row, -1 if overall else self.start
        self.tried.update(names(row[None]))
        return Proposal(self.coding.decode(row) if given is None else given)

    def report(self, ticket: int, epoch: float, score: float) -> None:
        """Nothing is learnt before the end."""

    def tell(self, ticket: int, scores: Scores | None, stopped: bool = False) -> None:
        row, start = self.running.pop(ticket)
        result = Result(row, scores, scores is not None and not stopped, start)
        earlier = [other.scores for other in self.results if other.whole and other.start == self.start]
        self.results.append(result)
        if start == self.start:
            better = result.whole and not any(np.all(np.array(other) >= scores) for other in earlier)
            self.stale = 0 if better else self.stale + 1
        if self.stale >= STALE:
            self._start(self.start + 1)

    def _start(self, number: int) -> None:
        self.start, self.stale = number, 0
        random = np.random.default_rng(key(self.seed, "local search design", number))
        self.design = list(self.coding.spread(DESIGN, random))
        self.surrogates = self._untaught()

    def _untaught(self) -> list[Surrogate]:
        return [Surrogate(self.coding) for _ in range(self.objectives)]

    def _chosen(self, ticket: int, overall: bool) -> Rows | None:
        random = np.random.default_rng(key(self.seed, "local search", ticket))
        while self.design:
            planned = self.design.pop(0)
            if names(planned[None])[0] not in self.tried:
                return planned
        with self.threads.limit(limits=1):  # the sums of several threads differ in their last bits
            found = self._promising(random, BOUNDS[ticket // (OVERALL if overall else 1) % len(BOUNDS)], overall)
        return found if found is not None else self.coding.fresh(self.tried, random)

    def _promising(self, random: np.random.Generator, bound: float, overall: bool) -> Rows | None:
        """The best candidate; None if there is none, or too few results."""
        results = _some([result for result in self.results if overall or result.start == self.start])
        if sum(result.scores is not None for result in results) < ENOUGH:
            return None
        rows, scores = np.array([result.row for result in results]), normal(results)
        believed = np.array([row for row, _ in self.running.values()]).reshape(-1, rows.shape[1])
        surrogates = self.overall if overall else self.surrogates
        for surrogate, column in zip(surrogates, scores.T, strict=True):
            surrogate.learn(rows, column, believed)
        weights = random.dirichlet(np.ones(self.objectives))
        total = (weights * (scores + ABOVE)).min(1)
        order = [i for i in np.argsort(-total, kind="stable") if results[i].whole]
        found = Candidates(self.coding, self.tried, surrogates, weights, bound, random)
        found.add(self.coding.sample(RANDOM, random))
        found.around([rows[i] for i in order[:BEST]])
        for _ in range(WALKS):
            found.around(found.best(BEST))
        return next(iter(found.best(1)), None)


class Candidates:
    """Points that were not tried, with the score hoped for at each."""

    def __init__(
        self,
        coding: Coding,
        tried: set[bytes],
        surrogates: list[Surrogate],
        weights: Numbers,
        bound: float,
        random: np.random.Generator,
    ) -> None:
        self.coding, self.tried, self.surrogates = coding, tried, surrogates
        self.weights, self.bound, self.random = weights, bound, random
        self.rows: dict[bytes, Rows] = {}
        self.hopes: dict[bytes, float] = {}

    def add(self, rows: Rows) -> None:
        known = self.tried | self.rows.keys()
        new = {name: row for name, row in zip(names(rows), rows, strict=True) if name not in known}
        if not new:
            return
        order = [list(new)[i] for i in self.random.permutation(len(new))]  # so that equal points have equal chances
        predicted = [surrogate.predict(np.array([new[name] for name in order])) for surrogate in self.surrogates]
        bounds = np.array([mean + self.bound * deviation for mean, deviation in predicted]).T
        hopes = (self.weights * (bounds + ABOVE)).min(1)
        self.rows.update({name: new[name] for name in order})
        self.hopes.update(zip(order, np.round(hopes, 6).tolist(), strict=True))  # the last bits decide nothing

    def around(self, rows: list[Rows]) -> None:
        if rows:
            self.add(np.concatenate([self.coding.neighbours(row, self.random) for row in rows]))

    def best(self, count: int) -> list[Rows]:
        return [self.rows[name] for name in sorted(self.rows, key=lambda name: -self.hopes[name])[:count]]


def normal(results: list[Result]) -> Numbers:
    """Scores [N, objectives] as normal variables of the same order; a failed trial is as bad as the worst."""
    known = np.array([result.scores for result in results if result.scores is not None])
    scores = np.array([known.min(0) if result.scores is None else result.scores for result in results])
    normalized: Numbers = ndtri((rankdata(scores, axis=0) - 0.5) / len(scores))
    return normalized


def _some(results: list[Result]) -> list[Result]:
    """All results; if there are very many, the best by their mean rank and the last."""
    if len(results) <= LEARNT:
        return results
    last = len(results) - LEARNT // 2
    means = normal(results[:last]).mean(1) if any(r.scores is not None for r in results[:last]) else np.zeros(last)
    kept = sorted(np.argsort(-means, kind="stable")[: LEARNT // 2])
    return [results[i] for i in kept] + results[last:]
