"""Importers: each turns raw data into checked samples. `kind` = module name = import path; there is no central list.

A module `assay/data/importers/<kind>.py` has `class Source(SourceConfig)` and
`def scan(source, root, progress) -> Scan`. Nothing heavy is imported at its top: every command reads the config.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from assay.config import SourceConfig
from assay.errors import InputError, known

if TYPE_CHECKING:
    from assay.data.images import ImageFacts

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what) while something long runs."""


class SourceChanged(InputError):
    """The raw data are not those that the config names. `folder` is where they lie."""

    def __init__(self, folder: str, recorded: str, found: str):
        super().__init__(f"the folder {folder} changed since it was added ({recorded[:8]}, now {found[:8]})")
        self.folder = folder


@dataclass(frozen=True)
class Sample:
    """One good image: what it is called, its class, and how to get its bytes.

    Attributes:
        label: index into the classes of the scan.
        sha256: of the raw content; samples of the same content never part in a split.
        facts: what `images.inspect` said of the content.
        read: gives the raw content again; raises `InputError` where it is no longer the one that was checked.
    """

    name: str
    label: int
    sha256: str
    facts: ImageFacts
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Scan:
    """What an importer found. `rejected` is [{file, reason}], `converted` is [{file, change}]; all in a fixed order.

    `digest` identifies the raw data: equal digests, equal data.
    """

    samples: list[Sample]
    classes: list[str]
    rejected: list[dict[str, str]]
    converted: list[dict[str, str]]
    warnings: list[str]
    digest: str


def kinds() -> list[str]:
    return sorted(entry.name for entry in pkgutil.iter_modules(__path__))


def load_importer(kind: str) -> ModuleType:
    if kind not in kinds():
        raise InputError(known("kind of source", kind, kinds()))
    return importlib.import_module(f"{__name__}.{kind}")


def load_source(kind: str) -> type[SourceConfig]:
    source: type[SourceConfig] = load_importer(kind).Source
    return source
