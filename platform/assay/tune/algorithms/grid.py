"""Every point of the space once, in a random order, so that an early end favours no region."""

from __future__ import annotations

import numpy as np

from assay.errors import InputError
from assay.fronts import Scores
from assay.train.randomness import key
from assay.tune.algorithms import Proposal, Setting
from assay.tune.space import MOST_COUNTED, Values


class Grid:
    """An `Algorithm`.

    Raises:
        InputError: a parameter is continuous or very long, or the points are too many to list.
    """

    def __init__(self, setting: Setting) -> None:
        space = setting.space
        for parameter in space.parameters:
            if parameter.choices is None:
                fix = "list its values as a choice" if parameter.config.log else "give it a step, or list a choice"
                raise InputError(
                    f"{space.origin}.{parameter.key}: a grid needs countable values, which {parameter.config.kind} "
                    f"does not have: {fix}"
                )
        if space.size is None:
            raise InputError(
                f"{space.origin}: a grid of more than {MOST_COUNTED:,} points: use fewer values, or another algorithm"
            )
        points = list(space.points())
        random = np.random.default_rng(key(setting.seed, "grid"))
        self.points = [points[i] for i in random.permutation(len(points))]
        self.next = 0

    def ask(self, ticket: int, given: Values | None = None) -> Proposal | None:  # noqa: ARG002
        if given is not None:
            return Proposal(given)
        if self.next == len(self.points):
            return None
        self.next += 1
        return Proposal(self.points[self.next - 1])

    def report(self, ticket: int, epoch: float, score: float) -> None:
        """A grid learns nothing."""

    def tell(self, ticket: int, scores: Scores | None, stopped: bool = False) -> None:
        """A grid learns nothing."""
