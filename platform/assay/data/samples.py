"""What an importer returns: checked samples, and everything else that it found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assay.errors import InputError

if TYPE_CHECKING:
    from assay.data.images import ImageFacts


class SourceChanged(InputError):
    """The raw data in `folder` are not those that the config names."""

    def __init__(self, folder: str, recorded: str, found: str):
        super().__init__(f"the folder {folder} changed since it was added ({recorded[:8]}, now {found[:8]})")
        self.folder = folder


@dataclass(frozen=True)
class Box:
    """A thing in an image: corners in pixels of the upright image (`x2 > x1`, `y2 > y1`), and its class.

    `ignored` boxes (crowds, difficult ones) are neither learnt nor counted; finding or missing one changes nothing.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    label: int
    ignored: bool = False


@dataclass(frozen=True)
class Sample:
    """One good image: its name, what it shows, and how to get its bytes.

    Attributes:
        labels: what the image shows, as indices into the scan's classes; exactly one for the annotation `class`.
        facts: what `images.inspect` found in the content.
        read: returns the raw content again; raises `InputError` if it has changed since it was checked.
        boxes: for the annotation `boxes`.
        split: if the source itself defines it: `train`, `val`, `test`, or `trainval`, a part of which becomes `val`.
    """

    name: str
    labels: tuple[int, ...]
    facts: ImageFacts
    read: Callable[[], bytes]
    boxes: tuple[Box, ...] = ()
    split: str | None = None

    @property
    def identity(self) -> bytes:
        """What makes an image the same as another: its pixels, not its file. Copies always go into the same split."""
        return self.facts.identity


@dataclass(frozen=True)
class Scan:
    """What an importer found. `rejected` is [{file, reason}], `converted` is [{file, change}]; all in a fixed order.

    `digest` identifies the raw data: equal digests, equal data. `annotation` is what is known about each image: its
    `class`, its `labels`, its `boxes`, or whether it is content or `style`.
    """

    samples: list[Sample]
    classes: list[str]
    rejected: list[dict[str, str]]
    converted: list[dict[str, str]]
    warnings: list[str]
    digest: str
    annotation: str = "class"


def held(
    name: str, labels: tuple[int, ...], content: bytes, boxes: tuple[Box, ...] = (), split: str | None = None
) -> Sample:
    """A sample whose content is small enough to stay in memory. Raises `images.Rejected` if it is unfit."""
    from assay.data.images import inspect  # imports numpy, which reading a config does not need

    return Sample(name, labels, inspect(content), _Held(content), boxes, split)


class _Held:
    def __init__(self, content: bytes):
        self.content = content

    def __call__(self) -> bytes:
        return self.content
