"""Importers: each turns raw data into checked samples. `kind` = module name = import path; there is no central list.

A module `assay/data/importers/<kind>.py` has `class Source(SourceConfig)` and `def scan(source, project, progress)`;
nothing heavy is imported at its top, for the config is read by every command.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from assay.config import SourceConfig
from assay.errors import InputError, known


def kinds() -> list[str]:
    return sorted(entry.name for entry in pkgutil.iter_modules(__path__))


def load_importer(kind: str) -> ModuleType:
    if kind not in kinds():
        raise InputError(known("kind of source", kind, kinds()))
    return importlib.import_module(f"{__name__}.{kind}")


def load_source(kind: str) -> type[SourceConfig]:
    source: type[SourceConfig] = load_importer(kind).Source
    return source
