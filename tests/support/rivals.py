"""Two runs that contend for one alias."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.tracking._tracking_service import utils

from assay.tracking import artifacts
from assay.tracking.tracker import Tracker
from tests.conftest import Project


@dataclass(frozen=True)
class Runs:
    """The ids of the good one and of the poor one."""

    good: str
    poor: str

    @classmethod
    def of(cls, project: Project) -> Runs:
        newest, oldest = Tracker(project.settings).newest("run", "digits", 2)
        return cls(oldest.info.run_id, newest.info.run_id)


def copied(project: Project, folder: Path) -> Project:
    """A copy, whose artifacts this process has not looked for yet."""
    utils._artifact_repos_cache.clear()  # MLflow remembers where the artifacts of a run were
    return project.copy(folder)


def loosen_further(project: Project, gate: str) -> None:
    text = (project.root / "params.yaml").read_text()
    (project.root / "params.yaml").write_text(text.replace("0.5}}", gate))


def artifact(project: Project, run_id: str, name: str) -> Path:
    uri = Tracker(project.settings).get(run_id).info.artifact_uri
    return Path(uri.removeprefix("file://")) / name


def as_another_version(project: Project, run_id: str, card: dict[str, Any] | None = None) -> None:
    """Let a champion's run come from another version of the dataset."""
    Tracker(project.settings).set_tags(run_id, {"assay.dataset_hash": "f" * 32 + ".dir"})
    tracker = Tracker(project.settings)
    tracker.log_text(run_id, artifacts.CARD, json.dumps(tracker.read_object(run_id, artifacts.CARD) | (card or {})))
