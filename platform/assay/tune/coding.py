"""Points of a space as rows of numbers, for algorithms that compare hundreds of points at a time.

A row has one column for each parameter, in the order of `Space.parameters`. It holds the index of the value in
`choices` if there are any, the value itself in a long whole range, and the `unit` in 0..1 in a continuous one; `ABSENT`
if the parameter does not count.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.tune.space import Parameter, Space, Values

Rows = NDArray[np.float64]
ABSENT = -1.0
SHORT = 8  # values of an ordered parameter that are all neighbours; of a longer one those some steps away
MANY = 24  # most neighbours among choices without an order
STEPS = (0.02, 0.1, 0.3)  # of a long range, to both sides
ATTEMPTS = 64  # random points drawn before the remaining ones are listed


class Coding:
    """Rows [N, parameters] of a space, and moves in it."""

    def __init__(self, space: Space) -> None:
        self.space = space
        columns = {parameter.key: column for column, parameter in enumerate(space.parameters)}
        self.conditions = [
            [(columns[name], _codes(space.by_key[name], allowed)) for name, allowed in parameter.when.items()]
            for parameter in space.parameters
        ]

    def encode(self, values: Values) -> Rows:
        """The row [parameters] of a point."""
        return np.array([_code(p, values[p.key]) if p.key in values else ABSENT for p in self.space.parameters])

    def decode(self, row: Rows) -> dict[str, Any]:
        pairs = zip(self.space.parameters, row.tolist(), strict=True)
        return {parameter.key: _value(parameter, code) for parameter, code in pairs if code != ABSENT}

    def own(self, values: Values) -> Rows | None:
        """The row of the values that count; None if they are not a point of the space."""
        point: dict[str, Any] = {}
        for parameter in self.space.parameters:
            if parameter.counts(point):
                if parameter.key not in values or not parameter.holds(values[parameter.key]):
                    return None
                point[parameter.key] = values[parameter.key]
        return self.encode(point)

    def settled(self, rows: Rows, random: np.random.Generator) -> Rows:
        """Rows in which exactly the parameters that count have values: random if missing."""
        rows = rows.copy()
        for column, parameter in enumerate(self.space.parameters):
            counts = np.ones(len(rows), dtype=bool)
            for other, codes in self.conditions[column]:
                counts &= np.isin(rows[:, other], codes)
            rows[~counts, column] = ABSENT
            missing = counts & (rows[:, column] == ABSENT)
            if missing.any():
                rows[missing, column] = _from_units(parameter, random.random(int(missing.sum())))
        return rows

    def sample(self, count: int, random: np.random.Generator) -> Rows:
        """Random points, [count, parameters]."""
        return self.settled(np.full((count, len(self.space.parameters)), ABSENT), random)

    def spread(self, count: int, random: np.random.Generator) -> Rows:
        """Random points [count, parameters] that spread evenly over each parameter: a Latin hypercube."""
        rows = np.empty((count, len(self.space.parameters)))
        for column, parameter in enumerate(self.space.parameters):
            rows[:, column] = _from_units(parameter, (random.permutation(count) + random.random(count)) / count)
        return self.settled(rows, random)

    def neighbours(self, row: Rows, random: np.random.Generator) -> Rows:
        """The points that differ from this one in one parameter, and in those that its change makes count."""
        found = []
        for column, parameter in enumerate(self.space.parameters):
            if row[column] != ABSENT:
                moved = np.repeat(row[None], len(codes := _moves(parameter, row[column], random)), 0)
                moved[:, column] = codes
                found.append(moved)
        return self.settled(np.concatenate(found), random) if found else row[None][:0]

    def mutated(self, row: Rows, random: np.random.Generator) -> Rows:
        """One neighbour: all parameters are equally likely to change, and so are all moves of one."""
        movable = [c for c, p in enumerate(self.space.parameters) if row[c] != ABSENT and _movable(p)]
        moved = row[None].copy()
        if movable:
            column = int(random.choice(movable))
            moved[0, column] = random.choice(_moves(self.space.parameters[column], row[column], random))
        settled: Rows = self.settled(moved, random)[0]
        return settled

    def units(self, rows: Rows) -> Rows:
        """The positions of the values in their parameters, 0..1, by logarithm in a logarithmic range."""
        units = rows.copy()
        for column, parameter in enumerate(self.space.parameters):
            units[:, column] = np.where(rows[:, column] == ABSENT, ABSENT, _units(parameter, rows[:, column]))
        return units

    def fresh(self, tried: set[bytes], random: np.random.Generator) -> Rows | None:
        """A random point that is not in `tried` (of `names`); None if there is none."""
        rows = self.sample(ATTEMPTS, random)
        left = [row for row, name in zip(rows, names(rows), strict=True) if name not in tried]
        if not left and self.space.size is not None:
            rows = np.array([self.encode(point) for point in self.space.points()])
            left = [row for row, name in zip(rows, names(rows), strict=True) if name not in tried]
            return left[int(random.integers(len(left)))] if left else None
        return left[0] if left else None


def names(rows: Rows) -> list[bytes]:
    """A name for each point: floats that differ only in the last bits count as equal."""
    return [row.tobytes() for row in np.round(rows, 9) + 0.0]


def _codes(parameter: Parameter, values: tuple[Any, ...]) -> list[int]:
    choices = parameter.choices or ()
    return [choices.index(value) for value in values if value in choices]


def _code(parameter: Parameter, value: Any) -> float:
    if parameter.choices is not None:
        return float(parameter.choices.index(value))
    return float(value) if parameter.config.whole else parameter.unit(value)


def _value(parameter: Parameter, code: float) -> Any:
    if parameter.choices is not None:
        return parameter.choices[int(code)]
    return int(code) if parameter.config.whole else parameter.at(code)


def _from_units(parameter: Parameter, units: Rows) -> Rows:
    """Like `Parameter.at`, in codes."""
    if parameter.config.log and parameter.config.whole:
        return np.array([_code(parameter, parameter.at(unit)) for unit in units.tolist()])
    if parameter.choices is None:
        return units
    return np.minimum(np.floor(units * len(parameter.choices)), len(parameter.choices) - 1)


def _units(parameter: Parameter, codes: Rows) -> Rows:
    if parameter.config.log and parameter.config.whole:
        values = np.maximum(codes + (parameter.low if parameter.choices is not None else 0), parameter.low)
        positions: Rows = np.log(values / parameter.low) / np.log(parameter.high / parameter.low)
        return positions
    units: Rows = codes / (1 if parameter.choices is None else max(len(parameter.choices) - 1, 1))
    return units


def _movable(parameter: Parameter) -> bool:
    return parameter.choices is None or len(parameter.choices) > 1


def _moves(parameter: Parameter, code: float, random: np.random.Generator) -> Rows:
    """The codes next to a code: all others of a few values; in a long range those some steps away."""
    count = None if parameter.choices is None else len(parameter.choices)
    if count is not None and (count <= SHORT or not parameter.ordered):
        others: Rows = np.delete(np.arange(count, dtype=float), int(code))
        return others if count <= MANY else random.permutation(others)[:MANY]
    here = _units(parameter, np.array([code]))[0]
    steps = np.array(STEPS) * random.uniform(0.5, 1.5, len(STEPS))
    units = np.clip(here + np.concatenate([-steps, steps]), 0.0, 1.0)
    codes = _from_units(parameter, units)
    if parameter.choices is not None or parameter.config.whole:
        low, high = (0, count - 1) if count is not None else (parameter.low, parameter.high)
        codes = np.clip(np.concatenate([codes, [code - 1, code + 1]]), low, high)
    moves: Rows = np.unique(codes[codes != code])
    return moves
