"""A task that learns next to nothing, at the pace and with the fate that its config asks for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from assay.config.plugin import Headline, TaskConfig


class Config(TaskConfig):
    """The score follows from `x`, `y` and the epoch alone; `fate` strikes where `x` is above `from_x`."""

    name: Literal["tests.support.knobs"] = "tests.support.knobs"
    x: float = Field(0.5, ge=0, le=1)
    y: float = Field(0.5, ge=0, le=1)
    kind: Literal["plain", "tuned"] = "plain"
    tuning: float = Field(0.0, ge=0, le=1)
    width: int = Field(2, ge=1, le=64)
    nap: float = Field(0.0, ge=0, description="seconds an epoch")
    fate: Literal["none", "raise", "nan", "memory", "die", "mute"] = "none"
    from_x: float = 0.0

    @property
    def headline(self) -> Headline:
        return Headline("score")

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("score", "effort")
