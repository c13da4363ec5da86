"""The shape of the network that `architecture: convnet` builds, and the space of such shapes. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from assay.config.schema import Frozen, NestedError

CONVNET = "convnet"
STAGES = 4
WIDTHS = ((8, 12, 16, 24, 32, 48), (16, 24, 32, 48, 64), (24, 32, 48, 64, 96), (32, 48, 64, 96, 128))
"""The widths in the space, by stage: smaller maps need more channels."""
DEEPEST = 2  # most blocks of a stage in the space


class StageConfig(Frozen):
    """Blocks of equal width on maps of one size. Each stage but the first begins by halving the side."""

    depth: int = Field(0, ge=0, le=4, description="blocks; 0 leaves the stage out")
    width: int = Field(32, ge=4, le=512, description="channels")
    kernel: Literal[3, 5, 7] = 3
    block: Literal["plain", "residual", "inception"] = Field(
        "plain", description="one convolution; two next to a shortcut; or four branches side by side"
    )
    bottleneck: bool = Field(False, description="1x1 convolutions to half the width before each kernel (and back)")


class NetworkConfig(Frozen):
    """A stem and up to four stages. Every shape can be built and trained, for images of any size."""

    stem: int = Field(24, ge=4, le=512, description="channels of the first convolution")
    stages: tuple[StageConfig, StageConfig, StageConfig, StageConfig] = (
        StageConfig(depth=1, width=24),
        StageConfig(depth=2, width=32),
        StageConfig(depth=1, width=48),
        StageConfig(),
    )
    normalization: Literal["batch", "group", "none"] = "batch"
    activation: Literal["relu", "silu", "gelu"] = "relu"
    separable: bool = Field(False, description="each kernel by itself on every channel, then 1x1 over the channels")

    @field_validator("stages", mode="before")
    @classmethod
    def _four(cls, value: Any) -> Any:
        """Stages that are not given are left out of the network."""
        short = isinstance(value, (list, tuple)) and len(value) < STAGES
        return [*value, *({"depth": 0} for _ in range(STAGES - len(value)))] if short else value

    @model_validator(mode="after")
    def _begins(self) -> NetworkConfig:
        if not self.stages[0].depth:
            raise NestedError([("stages.0.depth", "must be 1 or more: the first stage is always there, not 0")])
        return self


def shapes(when: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """The space of `network`, a `NetworkConfig`, as keys below `task` in the form of `space:`.

    Args:
        when: conditions, with whole keys (`task.…`), under which the network counts at all.
    """
    when = dict(when or {})
    found: dict[str, dict[str, Any]] = {
        "network.stem": {"choice": [8, 16, 24, 32], "when": when},
        "network.normalization": {"choice": ["batch", "group", "none"], "when": when},
        "network.activation": {"choice": ["relu", "silu", "gelu"], "when": when},
        "network.separable": {"choice": [False, True], "when": when},
    }
    for number, widths in enumerate(WIDTHS):
        key = f"network.stages.{number}"
        found[f"{key}.depth"] = {"integer": [0 if number else 1, DEEPEST], "when": when}
        present = {**when, f"task.{key}.depth": list(range(1, DEEPEST + 1))}
        found[f"{key}.width"] = {"choice": list(widths), "when": present}
        found[f"{key}.kernel"] = {"choice": [3, 5, 7], "when": present}
        found[f"{key}.block"] = {"choice": ["plain", "residual", "inception"], "when": present}
        found[f"{key}.bottleneck"] = {"choice": [False, True], "when": present}
    return found
