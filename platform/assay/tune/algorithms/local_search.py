"""Local search led by what the results so far say: Assay's own, for architectures first.

The neighbours of the best points so far, one parameter changed, are good candidates in spaces of networks (White,
Nolen and Savani, "Exploring the Loss Landscape in Neural Architecture Search", UAI 2021). Trying all of them wastes
trials: a Gaussian process ranks them by expected improvement (Jones, Schonlau and Welch, 1998), and the search walks
on from the most promising without training them. With several objectives, each trial draws weights for them and a
sample of each objective from its own process (Paria, Kandasamy and Póczos, UAI 2019).
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from assay.train.randomness import key
from assay.tune.algorithms import Proposal, Scores, Setting
from assay.tune.algorithms.surrogate import Numbers, Surrogate
from assay.tune.coding import Coding, Rows, names
from assay.tune.space import Values

DESIGN = 10
MERGE = True
STALE = 25
BEST = 5
WALKS = 2
RANDOM = 100


class LocalSearch:
    def __init__(self, setting: Setting) -> None:
        self.seed, self.objectives = setting.seed, setting.objectives
        self.coding = Coding(setting.space)
        self.surrogates = [Surrogate(self.coding) for _ in range(setting.objectives)]
        self.design = self.coding.spread(DESIGN, self._random("design", 0))
        self.tried: set[bytes] = set()
        self.running: dict[int, Rows] = {}
        self.rows: list[Rows] = []
        self.scores: list[Scores | None] = []
        self.whole: list[bool] = []
        self.since = 0
        self.asked = 0
        self.stale = 0
        self.starts = 0

    def ask(self, ticket: int, given: Values | None = None) -> Proposal | None:
        row = self._chosen(ticket) if given is None else self.coding.encode(given)
        if row is None:
            return None
        self.running[ticket] = row
        self.tried.add(names(row[None])[0])
        return Proposal(self.coding.decode(row) if given is None else given)

    def report(self, ticket: int, epoch: int, score: float) -> None:
        """Nothing is learnt before the end."""

    def tell(self, ticket: int, scores: Scores | None, stopped: bool = False) -> None:
        row = self.running.pop(ticket)
        if self.rows and self.whole and any(self.whole):
            if scores is not None and not stopped and scores[0] > max(s[0] for s, w in zip(self.scores, self.whole) if w):
                self.stale = 0
            else:
                self.stale += 1
            if self.stale >= STALE:
                self.restart()
                self.running.pop(ticket, None)
                return
        self.rows.append(row)
        self.scores.append(scores)
        self.whole.append(scores is not None and not stopped)

    def restart(self):
        self.starts += 1
        self.stale = 0
        if MERGE: self.all = [a + b for a, b in zip(getattr(self, "all", ([], [], [])), (self.rows, self.scores, self.whole))]
        self.rows, self.scores, self.whole = [], [], []
        if MERGE and self.starts % 2 == 0:
            self.rows, self.scores, self.whole = self.all
            self.all = ([], [], [])
            self.surrogates = [Surrogate(self.coding) for _ in range(self.objectives)]
            return
        self.asked = 0
        self.design = self.coding.spread(DESIGN, self._random("design", self.starts))
        self.surrogates = [Surrogate(self.coding) for _ in range(self.objectives)]

    def _random(self, purpose: str, ticket: int) -> np.random.Generator:
        return np.random.default_rng(key(self.seed, f"local search {purpose}", ticket))

    def _chosen(self, ticket: int) -> Rows | None:
        random = self._random("ask", ticket)
        if self.asked < len(self.design):
            row = self.design[self.asked]
            self.asked += 1
            if names(row[None])[0] not in self.tried:
                return row
        elif sum(self.whole) > 2:
            row = self._improving(random)
            if row is not None:
                return row
        return self.coding.fresh(self.tried, random)

    def _improving(self, random: np.random.Generator) -> Rows | None:
        rows = np.array(self.rows)
        scores = self._normal()
        running = np.array(list(self.running.values())).reshape(-1, rows.shape[1])
        for surrogate, column in zip(self.surrogates, scores.T, strict=True):
            surrogate.learn(rows, column, running)
        total = scores[:, 0]
        value = self._expected(total)
        order = np.argsort(-total, kind="stable")
        starts = [rows[i] for i in order if self.whole[i]][:BEST]
        found: dict[bytes, tuple[float, Rows]] = {}
        pool = self.coding.sample(RANDOM, random) if RANDOM else rows[:0]
        walked = set()
        for walk in range(WALKS + 1):
            pool = np.concatenate([pool, *(self.coding.neighbours(row, random) for row in starts)])
            new = {name: row for name, row in zip(names(pool), pool, strict=True) if name not in self.tried and name not in found}
            if new:
                rows_new = np.array(list(new.values()))
                for name, row, v in zip(new, rows_new, value(rows_new), strict=True):
                    found[name] = (float(v), row)
            ranked = sorted((n for n in found if n not in walked), key=lambda n: -found[n][0])[:BEST]
            walked.update(ranked)
            starts = [found[n][1] for n in ranked]
            pool = rows[:0]
            if not starts: break
        if not found:
            return None
        return max(found.values(), key=lambda f: f[0])[1]

    def _normal(self) -> Numbers:
        """The results on a scale on which they are distributed as a normal variable; a failed trial is among the worst."""
        width = self.objectives
        known = np.array([s for s in self.scores if s is not None])
        worst = known.min(0)
        whole = np.array([worst if s is None else s for s in self.scores])
        return transform(whole)

    def _expected(self, scores):
        best = scores.max()
        def value(rows):
            mean, deviation = self.surrogates[0].predict(rows)
            z = (mean - best) / deviation
            density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
            return deviation * (z * ndtr(z) + density)
        return value

def transform(whole):
    return ndtri((rankdata(whole, axis=0) - 0.5) / len(whole))
