"""The typed form of `searches:` in `params.yaml`: what to look for, where, how, and for how long. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from assay.config.schema import Frozen, Name

KINDS = ("choice", "uniform", "loguniform", "integer", "loginteger")
SAMPLERS = ("random", "grid", "tpe", "nsga2", "pbt", "evolution", "local_search")
SCHEDULERS = ("asha", "hyperband")
OBJECTIVE = r"^(val/[a-z0-9_]+|cost/(parameters|macs|receptive_field|latency_ms))$"
ObjectiveName = Annotated[str, Field(pattern=OBJECTIVE)]
CostName = Annotated[str, Field(pattern=r"^cost/(parameters|macs|receptive_field|latency_ms)$")]
Scalar = bool | int | float | str | None


class ParameterConfig(Frozen):
    """The values of one key: exactly one of the five kinds. Both ends of a range belong to it."""

    choice: tuple[Any, ...] | None = Field(None, min_length=1, description="any of these values")
    uniform: tuple[float, float] | None = Field(None, description="[low, high]")
    loguniform: tuple[float, float] | None = Field(None, description="[low, high], evenly by order of magnitude")
    integer: tuple[int, int] | None = Field(None, description="[low, high], whole numbers")
    loginteger: tuple[int, int] | None = Field(None, description="[low, high], whole, evenly by order of magnitude")
    step: float | None = Field(None, gt=0, description="of uniform and integer: between two values")
    when: dict[str, Scalar | tuple[Scalar, ...]] = Field(
        {}, description="other searched keys and the values at which this one counts; else it keeps its own value"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> ParameterConfig:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(KINDS)}, not {', '.join(given) or 'none'}")
        if self.choice is not None:
            return self
        low, high = self.range
        if low >= high:
            raise ValueError(f"{self.kind}: the low end {low:g} must be below the high end {high:g}")
        if self.log and low <= 0:
            raise ValueError(f"{self.kind}: the low end must be above 0, not {low:g}")
        if self.step is not None and self.log:
            raise ValueError(f"step does not go with {self.kind}; list the values as a choice")
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
    """When a search ends: at the first of these that is reached. At least one is given."""

    trials: int | None = Field(None, ge=1, description="configurations that were tried to an end")
    minutes: float | None = Field(None, gt=0, description="of working time, over all sessions")
    epochs: int | None = Field(None, ge=1, description="trained by all trials together")

    @model_validator(mode="after")
    def _bounded(self) -> BudgetConfig:
        if self.trials is None and self.minutes is None and self.epochs is None:
            raise ValueError("give trials, minutes or epochs, so that the search has an end")
        return self


class SearchConfig(Frozen):
    """One block of `searches:`."""

    experiment: Name
    algorithm: Literal[*SAMPLERS, *SCHEDULERS] = Field(  # type: ignore[valid-type]
        "local_search", description="how the next configuration is chosen; asha and hyperband alone choose at random"
    )
    scheduler: Literal[*SCHEDULERS] | None = Field(  # type: ignore[valid-type]
        None, description="stops trials early that fall behind, over any algorithm but pbt"
    )
    reduction: int = Field(4, ge=2, description="of asha and hyperband: one in so many goes on from each rung")
    first_rung: float = Field(
        1, gt=0, description="of asha and hyperband: epochs before the first decision; 0.25 is a quarter of the images"
    )
    population: int = Field(
        8, ge=2, description="of pbt and nsga2: members; of evolution: trials from which parents come"
    )
    interval: int = Field(1, ge=1, description="of pbt: epochs of a trial, after which the members are compared")
    space: dict[str, ParameterConfig] = Field({}, description="the searched keys of the experiment")
    networks: bool = Field(False, description="search the task's own space of networks too; `space` goes before it")
    set: dict[str, Any] = Field({}, description="keys of the experiment that all trials have otherwise")
    objectives: dict[ObjectiveName, Literal["max", "min"]] = Field(
        {}, description="what to look for; none: the task's headline"
    )
    limits: dict[CostName, float] = Field({}, description="the most that a network may cost; others are not trained")
    budget: BudgetConfig
    parallel: int | None = Field(None, ge=1, description="trials at a time; none: as many as there are slots")
    seed: int = Field(0, ge=0, lt=2**31)

    @field_validator("first_rung")
    @classmethod
    def _rung(cls, value: float, info: ValidationInfo) -> float:
        """Whole epochs, or a part of the first from which the rungs come to whole ones."""
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
        if self.sampler == "pbt" and self.scheduling:
            raise ValueError(f"pbt decides by itself who goes on: leave out scheduler: {self.scheduling}")
        self._comparable()
        return self

    def _comparable(self) -> None:
        """Refuse objectives by which trials cannot be compared before their end."""
        judge = "pbt" if self.sampler == "pbt" else self.scheduling
        if judge is None or not self.objectives:
            return
        if judge != "asha" and len(self.objectives) > 1:
            other = "nsga2, or tpe with scheduler: asha" if judge == "pbt" else "asha"
            raise ValueError(f"{judge} compares by one objective, not by {len(self.objectives)}: use {other}")
        if all(name.startswith("cost/") for name in self.objectives):
            raise ValueError(f"{judge} needs an objective of val/ that changes while it trains")

    @property
    def sampler(self) -> str:
        """The algorithm that chooses configurations."""
        return "random" if self.algorithm in SCHEDULERS else self.algorithm

    @property
    def scheduling(self) -> str | None:
        """The scheduler that stops trials early, if any."""
        return self.algorithm if self.algorithm in SCHEDULERS else self.scheduler


Objectives = Mapping[str, str]
"""Metric names and `max` or `min`."""
