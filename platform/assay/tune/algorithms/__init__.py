"""The algorithms that choose the configurations of a search; `make` creates one by its name.

An algorithm is a deterministic machine: the same calls in the same order return the same suggestions. It is never
saved; a resumed search creates a new one and repeats the calls from the search's journal. So it draws its random
numbers from the seed and the number of the ticket alone, and uses no clock, no file and no thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from assay.config.search import SearchConfig
from assay.fronts import Scores
from assay.tune.space import Space, Values


@dataclass(frozen=True)
class Proposal:
    """A configuration to try.

    Attributes:
        values: a point of the space.
        parent: the ticket of the ended trial whose weights it starts from; None: new weights.
        epochs: where it ends, counted from the beginning of its line of parents; None: at the experiment's own end.
    """

    values: Values
    parent: int | None = None
    epochs: int | None = None


class Algorithm(Protocol):
    """Tickets count 0, 1, 2, … `tell` is called at most once for each, in any order."""

    def ask(self, ticket: int, given: Values | None = None) -> Proposal | None:
        """The next proposal; None if there is none before the next `tell`. `given` are values that it must take."""

    def report(self, ticket: int, epoch: float, score: float) -> None:
        """The score of a running trial after an epoch. Called only with one objective."""

    def tell(self, ticket: int, scores: Scores | None, stopped: bool = False) -> None:
        """The scores of an ended trial; None: it failed, or its network was too costly. `stopped`: by a scheduler."""


@dataclass(frozen=True)
class Setting:
    """All that an algorithm knows of a search.

    Attributes:
        epochs: of a whole training.
        objectives: their number.
        start: the values of the searched keys in the experiment.
    """

    search: SearchConfig
    space: Space
    epochs: int
    objectives: int
    start: Mapping[str, Any]

    @property
    def seed(self) -> int:
        return self.search.seed


CLASSES = {
    "random": ("optuna_sampler", "OptunaSampler"),
    "tpe": ("optuna_sampler", "OptunaSampler"),
    "nsga2": ("optuna_sampler", "OptunaSampler"),
    "grid": ("grid", "Grid"),
    "pbt": ("population", "Population"),
    "evolution": ("evolution", "Evolution"),
    "local_search": ("local_search", "LocalSearch"),
}
"""The module and the class of each sampler; imported when it is used."""


def make(setting: Setting) -> Algorithm:
    """The algorithm of a search. Raises `InputError` if it cannot search the space."""
    module, name = CLASSES[setting.search.sampler]
    algorithm: Algorithm = getattr(import_module(f"assay.tune.algorithms.{module}"), name)(setting)
    return algorithm
