"""What chooses the configurations of a search. The name of an algorithm is looked up in `make`.

An algorithm is a deterministic machine: the same calls in the same order give the same suggestions. It is never
saved; a search that is resumed makes a new one and repeats the calls from the search's journal. So it draws its
random numbers from the seed and the number of the ticket alone, and keeps no clock, no file and no thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from assay.config.search import SearchConfig
from assay.tune.space import Space, Values

Scores = tuple[float, ...]
"""One number an objective, larger is better."""


@dataclass(frozen=True)
class Proposal:
    """A configuration to try.

    Attributes:
        values: a point of the space.
        parent: the ticket of the ended trial whose weights it starts from; None: fresh weights.
        epochs: where it ends, counted from the beginning of its line of parents; None: at the experiment's own end.
    """

    values: Values
    parent: int | None = None
    epochs: int | None = None


class Algorithm(Protocol):
    """Tickets count 0, 1, 2, … Each is told of at most once, some while others still run."""

    def ask(self, ticket: int, given: Values | None = None) -> Proposal | None:
        """The next proposal, None if there is none until more is told. `given` asks to take just these values."""

    def report(self, ticket: int, epoch: float, score: float) -> None:
        """How a running trial stands, where there is one objective."""

    def tell(self, ticket: int, scores: Scores | None, stopped: bool = False) -> None:
        """How a trial ended. None: it failed, or its network was over the limits. `stopped`: early, by a scheduler."""


@dataclass(frozen=True)
class Setting:
    """What an algorithm may know.

    Attributes:
        epochs: of a whole training.
        objectives: how many there are.
        start: the values that the experiment has by itself.
    """

    search: SearchConfig
    space: Space
    epochs: int
    objectives: int
    start: Mapping[str, Any]

    @property
    def seed(self) -> int:
        return self.search.seed


def make(setting: Setting) -> Algorithm:
    """The algorithm of a search. Raises `InputError` for a space that it cannot take."""
    name = setting.search.sampler
    if name in ("random", "tpe", "nsga2"):
        from assay.tune.algorithms.optuna_sampler import OptunaSampler

        return OptunaSampler(setting)
    if name == "grid":
        from assay.tune.algorithms.grid import Grid

        return Grid(setting)
    if name == "pbt":
        from assay.tune.algorithms.population import Population

        return Population(setting)
    if name == "evolution":
        from assay.tune.algorithms.evolution import Evolution

        return Evolution(setting)
    from assay.tune.algorithms.local_search import LocalSearch

    return LocalSearch(setting)
