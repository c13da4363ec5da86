"""What the grid of Gaussians lets one choose."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from assay.config.experiment import Decay
from assay.config.plugin import Headline, TaskConfig


class Config(TaskConfig):
    """A GAN on points, with the loss of the task `gan`."""

    name: Literal["benchmarks.quality.grid"] = "benchmarks.quality.grid"
    latent: int = Field(16, ge=2, description="random numbers a point; half of them are signs, the others normal")
    width: int = Field(128, ge=1)
    depth: int = Field(3, ge=1, description="hidden layers")
    frequencies: int = Field(4, ge=0, description="octaves in which the discriminator sees its points")
    samples: int = Field(25_600, ge=25, description="points of an epoch")
    judged: int = Field(10_000, ge=25, description="points of an evaluation")
    penalty: float = Field(0.3, ge=0, description="weight of R1 and of R2")
    penalty_end: float = Field(0.3, gt=0, le=1, description="factor on the penalty that it falls to by the end")
    ema: Decay = 0.998

    @property
    def headline(self) -> Headline:
        return Headline("near")
