"""The typed form of `searches:` in `params.yaml`: which keys to search, for what, how and how long. Free of torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from assay.config.schema import Frozen, Name


@dataclass(frozen=True)
class Traits:
    """What sets an algorithm apart, for all code that is not its own.

    Attributes:
        inherits: its trials continue from the weights of ended ones. So states are kept, and what is searched may not
            change a network.
        selects: it compares trials before their end and decides which continue. Only one algorithm can do so.
        many_objectives: it can compare by more than one objective.
    """

    inherits: bool = False
    selects: bool = False
    many_objectives: bool = True


KINDS = ("choice", "uniform", "loguniform", "integer", "loginteger")
SAMPLERS = {
    "random": Traits(),
    "grid": Traits(),
    "tpe": Traits(),
    "nsga2": Traits(),
    "pbt": Traits(inherits=True, selects=True, many_objectives=False),
    "evolution": Traits(),
    "local_search": Traits(),
}
"""The algorithms that choose configurations."""
SCHEDULERS = {"asha": Traits(selects=True), "hyperband": Traits(selects=True, many_objectives=False)}
"""The algorithms that stop trials early, over any sampler that does not select by itself."""
OBJECTIVE = r"^(val/[a-z0-9_]+|cost/(parameters|macs|receptive_field|latency_ms))$"
ObjectiveName = Annotated[str, Field(pattern=OBJECTIVE)]
CostName = Annotated[str, Field(pattern=r"^cost/(parameters|macs|receptive_field|latency_ms)$")]
Scalar = bool | int | float | str | None


class ParameterConfig(Frozen):
    """The values of one key: exactly one of the five kinds. Both ends of a range belong to it."""

    choice: tuple[Any, ...] | None = Field(None, min_length=1, description="one of these values")
    uniform: tuple[float, float] | None = Field(None, description="[low, high]")
    loguniform: tuple[float, float] | None = Field(None, description="[low, high] on a logarithmic scale")
    integer: tuple[int, int] | None = Field(None, description="[low, high], whole numbers")
    loginteger: tuple[int, int] | None = Field(None, description="[low, high], whole numbers on a logarithmic scale")
    step: float | None = Field(None, gt=0, description="for uniform and integer: from one value to the next")
    when: dict[str, Scalar | tuple[Scalar, ...]] = Field(
        {},
        description="other searched keys, and their values for which this key is searched; else it keeps its value",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> ParameterConfig:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(KINDS)}; you gave {' and '.join(given) or 'nothing'}")
        if self.choice is not None:
            return self
        low, high = self.range
        if low >= high:
            raise ValueError(f"{self.kind}: the low end {low:g} must be below the high end {high:g}")
        if self.log and low <= 0:
            raise ValueError(f"{self.kind}: the low end must be above 0, not {low:g}")
        if self.step is not None and self.log:
            raise ValueError(f"step cannot be combined with {self.kind}; list the values under choice")
        if self.step is not None and self.step > high - low:
            raise ValueError(f"step {self.step:g} is wider than the range of {high - low:g}")
        if self.step is not None and self.whole and not self.step.is_integer():
            raise ValueError(f"step of integer must be a whole number, not {self.step:g}")
        return self

    @property
    def kind(self) -> str:
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def range(self) -> tuple[float, float]:
        low, high = getattr(self, self.kind)
        return low, high

    @property
    def log(self) -> bool:
        return self.kind.startswith("log")

    @property
    def whole(self) -> bool:
        return self.kind.endswith("integer")


class BudgetConfig(Frozen):
    """When a search ends: at the first of these limits. At least one must be given."""

    trials: int | None = Field(None, ge=1, description="number of trials; networks over the limits do not count")
    minutes: float | None = Field(None, gt=0, description="working time, over all sessions")
    epochs: int | None = Field(None, ge=1, description="epochs trained by all trials together")

    @model_validator(mode="after")
    def _bounded(self) -> BudgetConfig:
        if self.trials is None and self.minutes is None and self.epochs is None:
            raise ValueError("give trials, minutes or epochs, so that the search has an end")
        return self


class SearchConfig(Frozen):
    """One block of `searches:`."""

    experiment: Name
    algorithm: Literal[*SAMPLERS, *SCHEDULERS] = Field(  # type: ignore[valid-type]
        "local_search", description="how configurations are chosen; asha and hyperband choose at random"
    )
    scheduler: Literal[*SCHEDULERS] | None = Field(  # type: ignore[valid-type]
        None, description="stops trials that fall behind; for any algorithm but pbt"
    )
    reduction: int = Field(4, ge=2, description="for asha and hyperband: one trial in this many passes each rung")
    first_rung: float = Field(
        1, gt=0, description="for asha and hyperband: epochs before the first decision; 0.25: a quarter of the images"
    )
    population: int = Field(
        8, ge=2, description="for pbt and nsga2: members; for evolution: trials that parents are chosen from"
    )
    interval: int = Field(1, ge=1, description="for pbt: epochs between two comparisons of the members")
    space: dict[str, ParameterConfig] = Field({}, description="the searched keys of the experiment")
    networks: bool = Field(False, description="also search the task's own networks; keys in `space` take precedence")
    set: dict[str, Any] = Field({}, description="other values for keys of the experiment, for all trials")
    objectives: dict[ObjectiveName, Literal["max", "min"]] = Field(
        {}, description="metrics to optimize; default: the task's headline"
    )
    limits: dict[CostName, float] = Field({}, description="maximum costs of a network; networks above are not trained")
    budget: BudgetConfig
    parallel: int | None = Field(None, ge=1, description="trials at a time; default: as many as there are slots")
    seed: int = Field(0, ge=0, lt=2**31)

    @field_validator("first_rung")
    @classmethod
    def _rung(cls, value: float, info: ValidationInfo) -> float:
        """Whole epochs, or a part of the first epoch whose later rungs are whole epochs."""
        if value >= 1:
            if not float(value).is_integer():
                raise ValueError(f"above 1 it is a whole number of epochs, not {value:g}")
            return int(value)
        reduction = info.data.get("reduction", 2)
        below = max(round(-math.log(value, reduction)), 1)
        if abs(value * reduction**below - 1) > 0.01:
            parts = ", ".join(f"{reduction**-k:.4g}" for k in (1, 2, 3))
            raise ValueError(f"below 1, with reduction: {reduction}, it is one of {parts}, …, not {value:g}")
        return float(reduction**-below)

    @field_validator("objectives", mode="before")
    @classmethod
    def _not_null(cls, value: Any) -> Any:
        return {} if value is None else value

    @model_validator(mode="after")
    def _consistent(self) -> SearchConfig:
        if not self.space and not self.networks:
            raise ValueError("the space is empty: give `space` at least one key, or set networks: true")
        if SAMPLERS[self.sampler].selects and self.scheduling:
            raise ValueError(f"{self.sampler} stops trials by itself: leave out scheduler: {self.scheduling}")
        self._comparable()
        return self

    def _comparable(self) -> None:
        """Refuse objectives by which trials cannot be compared before their end."""
        selector = self.sampler if SAMPLERS[self.sampler].selects else self.scheduling
        if selector is None or not self.objectives:
            return
        if len(self.objectives) > 1 and not {**SAMPLERS, **SCHEDULERS}[selector].many_objectives:
            able = " or ".join(name for name, traits in SCHEDULERS.items() if traits.many_objectives)
            other = able if self.scheduling else f"another algorithm, with scheduler: {able} to stop trials early"
            raise ValueError(f"{selector} compares by one objective, not by {len(self.objectives)}: use {other}")
        if all(name.startswith("cost/") for name in self.objectives):
            raise ValueError(f"{selector} needs an objective of val/ that changes during training")

    @property
    def sampler(self) -> str:
        """The algorithm that chooses configurations."""
        return "random" if self.algorithm in SCHEDULERS else self.algorithm

    @property
    def inherits(self) -> bool:
        """Whether trials continue from the weights of ended ones."""
        return SAMPLERS[self.sampler].inherits

    @property
    def scheduling(self) -> str | None:
        """The scheduler that stops trials early, if any."""
        return self.algorithm if self.algorithm in SCHEDULERS else self.scheduler
