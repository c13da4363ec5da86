"""A dataset version without opening it: its card, and how it is divided."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from assay.config.schema import Frozen

Annotation = Literal["class", "labels", "boxes", "style"]


class SplitConfig(Frozen):
    """The fractions of a stratified split; they add up to 1 and are met on average."""

    train: float = Field(0.7, gt=0, lt=1)
    val: float = Field(0.1, gt=0, lt=1)
    test: float = Field(0.2, gt=0, lt=1)

    @model_validator(mode="after")
    def _whole(self) -> SplitConfig:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + val + test add up to {total:g}; they must add up to 1")
        return self


class Listed(Frozen):
    """What is said of files: how many lines there are, and the first of them. All are in the version's report."""

    count: int
    first: list[dict[str, str]]


class Card(Frozen):
    """What a dataset version is. Nothing in it depends on the machine or the time.

    Attributes:
        annotation: what is known of each image.
        channels: 3 if any sample has colour, else 1; `mean` and `std` have as many values.
        samples: how many images each split has.
        counts: by split and class, how many images show the class; of boxes, how many there are, ignored ones left out.
        min_size, max_size, median_size: [height, width] in pixels, each side separately.
        short_side: the median of the shorter sides, in pixels.
        mean, std: of all pixels of the train split, in 0..1; `std` is that of the population.
        source: the digest of the raw data.
        rejected, converted: lines of {file, reason} and {file, change}.
        files: md5 of each other file of the version, so that damage can be named without DVC's cache.
    """

    name: str
    kind: str
    annotation: Annotation = "class"
    classes: list[str]
    channels: int
    samples: dict[str, int]
    counts: dict[str, dict[str, int]]
    min_size: list[int]
    max_size: list[int]
    median_size: list[int]
    short_side: int
    mean: list[float]
    std: list[float]
    source: str
    split: SplitConfig
    seed: int
    rejected: Listed
    converted: Listed
    warnings: list[str]
    files: dict[str, str]

    @property
    def boxes(self) -> int | None:
        """The number of boxes, without ignored ones; None if the annotation is another one."""
        if self.annotation != "boxes":
            return None
        return sum(count for counts in self.counts.values() for count in counts.values())

    def summary(self, version: str | None) -> dict[str, Any]:
        """What the `data` commands show without the version's report; `version` is its hash."""
        return {
            "name": self.name,
            "hash": version,
            "annotation": self.annotation,
            "boxes": self.boxes,
            "samples": sum(self.samples.values()),
            "splits": self.samples,
            "classes": self.classes,
            "warnings": self.warnings,
        }
