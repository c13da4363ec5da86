"""The space of a search: typed parameters, some of which count only for certain values of others.

A point is a mapping of keys to values that holds exactly the parameters that count: `Values`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from assay.config.experiment import ExperimentConfig, replaced
from assay.config.search import ParameterConfig, SearchConfig
from assay.errors import InputError, known

Values = Mapping[str, Any]
MOST_COUNTED = 1_000_000  # points up to which a space is counted and listed


@dataclass(frozen=True)
class Parameter:
    """One searched key.

    Attributes:
        choices: every value, in order; None for a continuous or very long range.
        low, high: ends of a range, which include them.
        ordered: whether neighbours in `choices` are similar.
        when: other keys, each with the values for which this parameter counts.
    """

    key: str
    config: ParameterConfig
    choices: Sequence[Any] | None
    low: float = math.nan
    high: float = math.nan
    ordered: bool = False
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, key: str, config: ParameterConfig, origin: str = "space") -> Parameter:
        """Raises `InputError` for a choice that is listed twice, and for a step that leads to too many values."""
        when = {name: tuple(v) if isinstance(v, (list, tuple)) else (v,) for name, v in config.when.items()}
        if config.choice is not None:
            plain = tuple(_plain(value) for value in config.choice)
            twice = next((value for place, value in enumerate(plain) if value in plain[:place]), None)
            if len({identity({"": value}) for value in plain}) < len(plain):
                raise InputError(f"{origin}.{key}: choice lists {twice!r} twice: remove one")
            numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in plain)
            return cls(key, config, plain, ordered=numbers and list(plain) == sorted(plain), when=when)
        low, high = config.range
        choices = None
        if config.step is not None or (config.whole and not config.log):
            step = config.step or 1
            count = math.floor((high - low) / step + 1e-9) + 1
            if config.whole:
                return cls(key, config, range(int(low), int(high) + 1, int(step)), low, high, ordered=True, when=when)
            if count > MOST_COUNTED:
                raise InputError(
                    f"{origin}.{key}: a step of {step:g} leads to {count:,} values: use a larger one, or leave it out"
                )
            choices = tuple(round(low + i * step, 12) for i in range(count))
        elif config.whole and high - low < 256:
            return cls(key, config, range(int(low), int(high) + 1), low, high, ordered=True, when=when)
        return cls(key, config, choices, low, high, ordered=True, when=when)

    def at(self, unit: float) -> Any:
        """The value at `unit` in 0..1, spread evenly over the values, or over their logarithms."""
        if self.choices is not None and not self.config.log:
            return self.choices[min(int(unit * len(self.choices)), len(self.choices) - 1)]
        if self.config.log:
            low, high = self._logarithms()
            value = min(max(math.exp(low + unit * (high - low)), self.low), self.high)
            return round(value) if self.config.whole else value
        return float(self.low + unit * (self.high - self.low))

    def unit(self, value: Any) -> float:
        """The position of a value, 0..1."""
        if self.choices is not None and not self.config.log:
            return self.choices.index(value) / max(len(self.choices) - 1, 1)
        if self.config.log:
            low, high = self._logarithms()
            return (math.log(value) - low) / (high - low)
        return float((value - self.low) / (self.high - self.low))

    def _logarithms(self) -> tuple[float, float]:
        """Of both ends; a whole number takes up the range from half below to half above it."""
        half = 0.5 if self.config.whole else 0.0
        return math.log(self.low - half if self.low > half else self.low), math.log(self.high + half)

    def holds(self, value: Any) -> bool:
        """Whether a value belongs to the parameter."""
        if self.choices is not None:
            return value in self.choices
        number = isinstance(value, int if self.config.whole else (int, float)) and not isinstance(value, bool)
        return number and self.low <= value <= self.high

    def counts(self, values: Values) -> bool:
        return all(name in values and values[name] in allowed for name, allowed in self.when.items())


class Space:
    """The parameters of a search, those that others depend on first.

    Raises:
        InputError: it contradicts itself; names the parameter.
    """

    def __init__(self, parameters: Mapping[str, ParameterConfig], origin: str = "space") -> None:
        self.origin = origin
        self.parameters = tuple(_in_order({k: Parameter.of(k, c, origin) for k, c in parameters.items()}, origin))
        self.by_key = {parameter.key: parameter for parameter in self.parameters}

    def sample(self, random: np.random.Generator) -> dict[str, Any]:
        return self.complete({}, random)

    def complete(self, values: Values, random: np.random.Generator) -> dict[str, Any]:
        """The values that count, random if missing; those that do not count are left out."""
        whole: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.counts(whole):
                drawn = random.random()  # always, so that a change of one value leaves the others unchanged
                whole[parameter.key] = values[parameter.key] if parameter.key in values else parameter.at(drawn)
        return whole

    @cached_property
    def size(self) -> int | None:
        """The number of points; None if it is infinite or above a million."""
        if any(parameter.choices is None for parameter in self.parameters):
            return None
        deciding = {name for parameter in self.parameters for name in parameter.when}
        size = 0
        for point in self.points(only=deciding):
            size += math.prod(
                len(p.choices or ()) for p in self.parameters if p.key not in deciding and p.counts(point)
            )
            if size > MOST_COUNTED:
                return None
        return size

    def points(
        self, only: Collection[str] | None = None, values: Values | None = None, number: int = 0
    ) -> Iterator[dict[str, Any]]:
        """Every point, the last parameter changing fastest. Only if all parameters (of `only`) have `choices`."""
        values = values or {}
        if number == len(self.parameters):
            yield dict(values)
            return
        parameter = self.parameters[number]
        if not parameter.counts(values) or (only is not None and parameter.key not in only):
            yield from self.points(only, values, number + 1)
            return
        assert parameter.choices is not None
        for value in parameter.choices:
            yield from self.points(only, {**values, parameter.key: value}, number + 1)

    def apply(self, experiment: ExperimentConfig, values: Values) -> ExperimentConfig:
        """The experiment at a point of the space."""
        return replaced(experiment, values.items(), f"{self.origin}:")


def identity(values: Values) -> str:
    """The same text for the same point."""
    return json.dumps(dict(values), sort_keys=True)


def bound(name: str, search: SearchConfig, experiment: ExperimentConfig) -> tuple[Space, ExperimentConfig]:
    """The space of a search, checked against its experiment, and the experiment that all trials start from.

    Raises:
        InputError: keys that do not exist, values that are out of range or not an architecture; all at once.
    """
    origin = f"params.yaml: searches.{name}"
    fixed = replaced(experiment, search.set.items(), f"{origin}.set:")
    networks = {}
    if search.networks:
        found = fixed.task.networks()
        if not found:
            raise InputError(f"{origin}.networks: task {fixed.task.name!r} has no networks to search")
        networks = {f"task.{key}": ParameterConfig.model_validate(plain) for key, plain in found.items()}
    space = Space({**networks, **search.space}, f"{origin}.space")
    twice = sorted(set(search.space) & set(search.set))
    if twice:
        raise InputError(f"{origin}.set: {twice[0]} is searched too: remove it from one of them")
    _check_values(space, fixed)
    return space, fixed


def _check_values(space: Space, experiment: ExperimentConfig) -> None:
    """Check every choice and both ends of every range, each in a random point in which it counts."""
    random = np.random.default_rng(0)
    faults = []
    for parameter in space.parameters:
        around = _around(space, parameter)
        if around is None:
            faults.append(f"{space.origin}.{parameter.key}.when: these conditions never hold together")
            continue
        for value in parameter.choices[:256] if parameter.choices else (parameter.at(0.0), parameter.at(1.0)):
            try:
                space.apply(experiment, space.complete({**around, parameter.key: value}, random))
            except InputError as error:
                lines = str(error).splitlines()
                own = [line for line in lines if parameter.key in line] or lines
                faults.append(own[0] if parameter.key in own[0] else f"{space.origin}: {parameter.key}: {own[0]}")
                break
    if faults:
        raise InputError("\n".join(dict.fromkeys(faults)))


def _around(space: Space, parameter: Parameter) -> dict[str, Any] | None:
    """Values of others for which a parameter counts; None if there are none."""
    deciding, waiting = set[str](), [parameter]
    while waiting:
        new = waiting.pop().when.keys() - deciding
        deciding |= new
        waiting += [space.by_key[name] for name in new]
    return next((point for point in space.points(deciding) if parameter.counts(point)), None)


def _in_order(parameters: Mapping[str, Parameter], origin: str) -> Iterator[Parameter]:
    """Parameters in the order they are written, but those that others depend on first."""
    left, done = dict(parameters), set[str]()
    for parameter in parameters.values():
        for name, allowed in parameter.when.items():
            where = f"{origin}.{parameter.key}.when.{name}"
            if name not in parameters:
                raise InputError(f"{where}: {known('searched key', name, list(parameters))}")
            choices = parameters[name].choices
            if choices is None:
                raise InputError(f"{where}: {name} is a continuous range; a condition needs a choice or whole numbers")
            if not any(value in choices for value in allowed):
                raise InputError(
                    f"{where}: {name} is never {' or '.join(map(repr, allowed))}; it is one of {_listed(choices)}"
                )
    while left:
        ready = next((p for p in left.values() if set(p.when) <= done), None)
        if ready is None:
            raise InputError(f"{origin}: the conditions of {', '.join(left)} depend on each other")
        del left[ready.key]
        done.add(ready.key)
        yield ready


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(repr, values[:10])) + (", …" if len(values) > 10 else "")


def _plain(value: Any) -> Any:
    """A choice as JSON stores it: lists, not tuples."""
    return json.loads(json.dumps(value))
