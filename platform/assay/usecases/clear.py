"""What killed commands left in a project, cleared by the next command, whichever it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from assay.files import clear_leftovers
from assay.scratch import clear_scratch
from assay.settings import Settings
from assay.state import FLOW_PROCESSES
from assay.train.folder import PICTURES


def clear_project(settings: Settings) -> None:
    """Remove scratch folders and half-written files of dead processes, and put back what they were replacing."""
    clear_scratch(settings.root)
    for folder in _written(settings):
        clear_leftovers(folder)


def _written(settings: Settings) -> Iterator[Path]:
    """The folders in which commands replace files or folders."""
    root, runs = settings.root, settings.runs
    yield from (root, root / "data", runs, settings.state, settings.state / FLOW_PROCESSES)
    for results in (root / "results", root / "results" / "searches"):
        yield from results.glob("*/")
    for run in runs.glob("*/"):
        yield from (run, run / PICTURES)
    yield from runs.glob("*/trials/*/")
