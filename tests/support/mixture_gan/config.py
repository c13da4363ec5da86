"""What the test-only GAN lets one choose. It exists to prove that the contract carries two networks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from assay.config.plugin import Headline, TaskConfig


class Config(TaskConfig):
    name: Literal["tests.support.mixture_gan"] = "tests.support.mixture_gan"
    modes: int = Field(8, ge=1)
    latent: int = Field(8, ge=1)
    width: int = Field(64, ge=1)
    samples: int = Field(512, ge=16)
    penalty: float = Field(0.5, ge=0, description="weight of the R1 penalty")

    @property
    def headline(self) -> Headline:
        return Headline("coverage")

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("near", "coverage")
