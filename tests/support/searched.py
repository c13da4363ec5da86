"""A project with an experiment that learns nothing, and searches of it as a test wants them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from assay.tracking.tracker import Tracker
from assay.tune.journal import read_journal
from assay.usecases.helpers.search_progress import SearchProgress
from assay.usecases.tune import TuneRequest, tune
from tests.conftest import REPOSITORY, Project

EXPERIMENT = """
  knobs:                      # learns nothing, on purpose
    task: {name: tests.support.knobs}
    data: digits
    train: {epochs: 4, batch_size: 8, workers: 0}
"""
BASE: dict[str, Any] = {
    "experiment": "knobs",
    "algorithm": "random",
    "budget": {"trials": 6},
    "parallel": 2,
    "space": {"task.x": {"uniform": [0, 1]}, "task.y": {"uniform": [0, 1]}},
}


class Searched:
    """A project with an experiment to search, and searches as a test wants them."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.params = project.root / "params.yaml"
        link = project.root / "platform/assay/tasks/tests.support.knobs"  # where DVC looks for the code of an own task
        if link.parent.is_dir():
            link.symlink_to(REPOSITORY / "tests/support/knobs")
        text = self.params.read_text()
        place = text.index("experiments:\n") + len("experiments:\n")
        self.text = text[:place] + EXPERIMENT.lstrip("\n") + text[place:]

    def write(self, **changes: Any) -> None:
        block = {**BASE, **changes}
        self.params.write_text(f"{self.text}\nsearches:\n  s: {json.dumps(block)}\n")

    def tune(self, say: Callable[[str], None] = lambda _: None, **request: Any) -> dict[str, Any]:
        return tune(TuneRequest("s", **request), self.project.settings, SearchProgress(say))

    def trials(self, search_id: str) -> list[Any]:
        return Tracker(self.project.settings).children("knobs", search_id)

    def events(self, search_id: str) -> list[Any]:
        return read_journal(self.journal(search_id))[0]

    def journal(self, search_id: str) -> Path:
        return self.project.root / ".assay/runs" / search_id / "journal.jsonl"
