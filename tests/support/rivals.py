"""Two runs that contend for one alias."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlflow.tracking._tracking_service import utils

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
