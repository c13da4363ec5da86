"""Population based training (Jaderberg et al., "Population Based Training of Neural Networks", 2017, section 3).

A trial is a leg: `interval` epochs of one member. Between legs a member that is among the worst quarter takes the
weights of one of the best quarter and changes their values a little; the others continue with their own.

Members are compared only at the same age, each with those that have reached it: a younger one would always lose.
So weights come from a leg that ended at the epoch of the member, even if their owner has continued since; clocks never
go back, the youngest members go first, and there are population * ceil(epochs / interval) legs.

The paper changes values by factors of 0.8 and 1.2, whatever their range; a few generations get nowhere by these in a
range of several orders of magnitude. Here a step is a tenth of the range, by order of magnitude in a logarithmic one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from assay.fronts import Scores
from assay.train.randomness import key
from assay.tune.algorithms import Proposal, Setting
from assay.tune.coding import Coding
from assay.tune.space import Parameter, Values

RESAMPLED = 0.25  # of the values are drawn again on exploring
STEP = 0.1  # of its range by which another value moves up or down


@dataclass(frozen=True)
class Leg:
    """A leg that has run or runs; `age` counts the legs of its weights up to its end."""

    ticket: int
    member: int
    age: int
    values: Values


class Population:
    """An `Algorithm`. `ask` returns None while all members run or wait for others, and forever once all are done."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.size = setting.search.population
        self.ages = math.ceil(setting.epochs / setting.search.interval)
        coding = Coding(setting.space)
        first = coding.spread(self.size, np.random.default_rng(key(setting.seed, "population")))
        self.first = [coding.decode(row) for row in first]
        self.latest: list[Leg | None] = [None] * self.size  # by member
        self.running: dict[int, Leg] = {}
        self.ended: dict[int, dict[int, tuple[float, Leg]]] = {}  # by age and member, if finished

    def ask(self, ticket: int, given: Values | None = None) -> Proposal | None:
        random = np.random.default_rng(key(self.setting.seed, "leg", ticket))
        busy = {leg.member for leg in self.running.values()}
        for member in sorted(set(range(self.size)) - busy, key=lambda m: (self._age(m), m)):
            age = self._age(member)
            if age == self.ages or self._waits(member):
                continue
            values, parent = self._next(member, random)
            leg = Leg(ticket, member, 1 if parent is None else parent.age + 1, given or values)
            self.latest[member] = self.running[ticket] = leg
            epochs = min(leg.age * self.setting.search.interval, self.setting.epochs)
            return Proposal(leg.values, None if parent is None else parent.ticket, epochs)
        return None

    def report(self, ticket: int, epoch: float, score: float) -> None:
        """Members are compared after their legs."""

    def tell(self, ticket: int, scores: Scores | None, stopped: bool = False) -> None:
        leg = self.running.pop(ticket)
        if scores is not None and not stopped:
            self.ended.setdefault(leg.age, {})[leg.member] = (scores[0], leg)

    def _age(self, member: int) -> int:
        leg = self.latest[member]
        return 0 if leg is None else leg.age

    def _waits(self, member: int) -> bool:
        """Whether it must wait: its leg failed, no member has reached its age, and one still may."""
        age = self._age(member)
        return age > 0 and not self.ended.get(age) and any(leg.age <= age for leg in self.running.values())

    def _next(self, member: int, random: np.random.Generator) -> tuple[Values, Leg | None]:
        """The values of a member's next leg, and the leg whose weights it starts from."""
        age = self._age(member)
        if age == 0:
            return self.first[member], None
        while age and not self.ended.get(age):  # all failed at this age: back to one that a member reached
            age -= 1
        if age == 0:
            return self.setting.space.sample(random), None
        peers = self.ended[age]
        ranked = sorted(peers, key=lambda m: (-peers[m][0], m))
        quarter = max(1, self.size // 4)
        if member in peers and (len(peers) < 2 * quarter or member not in ranked[-quarter:]):
            leg = peers[member][1]
            return leg.values, leg
        better = [m for m in ranked[: min(quarter, len(ranked))] if m != member]
        leg = peers[int(random.choice(better))][1]
        return explored(self.setting, leg.values, random), leg


def explored(setting: Setting, values: Values, random: np.random.Generator) -> dict[str, Any]:
    """A point near another: each value a step away, sometimes one at random."""
    near: dict[str, Any] = {}
    for parameter in setting.space.parameters:
        if parameter.counts(near):
            drawn, resampled, up = random.random(), random.random() < RESAMPLED, bool(random.random() < 0.5)
            old = values.get(parameter.key)
            fresh = resampled or parameter.key not in values
            near[parameter.key] = parameter.at(drawn) if fresh else _perturbed(parameter, old, up)
    return near


def _perturbed(parameter: Parameter, value: Any, up: bool) -> Any:
    """A value a tenth of the range away, at least the next, within the bounds; an unordered choice stays."""
    if not parameter.ordered:
        return value
    way = 1 if up else -1
    if parameter.choices is None or parameter.config.log:
        moved = parameter.at(min(max(parameter.unit(value) + way * STEP, 0.0), 1.0))
        if parameter.choices is None or moved != value:
            return moved
    assert parameter.choices is not None
    place = parameter.choices.index(value) + way * max(1, round(STEP * (len(parameter.choices) - 1)))
    return parameter.choices[min(max(place, 0), len(parameter.choices) - 1)]
