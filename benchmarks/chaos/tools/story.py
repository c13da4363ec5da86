"""What the tracking store says of an experiment, read from its own tables: what was lost, doubled or left running."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEASURED = ("time/", "system/")
"""Metrics whose values differ from run to run; that there is one at a step does not."""


@dataclass(frozen=True)
class Story:
    """One experiment of a project.

    Attributes:
        points: how often each (metric, step, value) of the finished run was recorded; values of `MEASURED` left out.
        statuses: of all runs in the store.
        versions: of the model.
    """

    weights: str
    points: Counter[tuple[str, int, str]]
    statuses: Counter[str]
    versions: int
    champion: str


def read_story(project: Path, experiment: str) -> Story:
    with closing(sqlite3.connect(project / ".assay/mlflow.db", timeout=60)) as store:
        rows = store.execute(
            "SELECT r.run_uuid, r.status FROM runs r JOIN experiments e ON e.experiment_id = r.experiment_id "
            "WHERE e.name = ? AND r.lifecycle_stage = 'active'", (experiment,),
        ).fetchall()  # fmt: skip
        finished = [run_id for run_id, status in rows if status == "FINISHED"]
        points: Counter[tuple[str, int, str]] = Counter()
        for run_id in finished[-1:]:
            for key, step, value in store.execute("SELECT key, step, value FROM metrics WHERE run_uuid = ?", (run_id,)):
                points[key, step, "" if key.startswith(MEASURED) else repr(value)] += 1
        versions = store.execute("SELECT version FROM model_versions WHERE name = ?", (experiment,)).fetchall()
        aliases = store.execute("SELECT alias, version FROM registered_model_aliases WHERE name = ?", (experiment,))
        champion = dict(aliases.fetchall()).get("champion", "")
    return Story(_weights(project, experiment), points, Counter(s for _, s in rows), len(versions), str(champion))


def _weights(project: Path, experiment: str) -> str:
    try:
        record: dict[str, Any] = json.loads((project / "results" / experiment / "train.json").read_text())
        return str(record["weights_sha256"])
    except (OSError, ValueError, KeyError):
        return ""


def running(project: Path) -> int:
    """How many runs of all experiments say RUNNING."""
    with closing(sqlite3.connect(project / ".assay/mlflow.db", timeout=60)) as store:
        return int(store.execute("SELECT count(*) FROM runs WHERE status = 'RUNNING'").fetchone()[0])


def differences(whole: Story, found: Story) -> dict[str, str]:
    """What a disturbed experiment has other than its undisturbed twin: lost, doubled or false."""
    faults = {}
    if found.weights != whole.weights:
        faults["false"] = f"weights {found.weights[:8] or 'missing'} instead of {whole.weights[:8]}"
    if lost := whole.points.keys() - found.points.keys():
        faults["lost"] = f"{len(lost)} points, such as {min(lost)}"
    if strange := found.points.keys() - whole.points.keys():
        faults["strange"] = f"{len(strange)} points, such as {min(strange)}"
    doubled = [point for point, count in found.points.items() if count > 1]
    if doubled:
        faults["doubled"] = f"{len(doubled)} points, such as {min(doubled)}"
    if found.statuses != whole.statuses:
        faults["runs"] = f"{dict(found.statuses)} instead of {dict(whole.statuses)}"
    if (found.versions, found.champion) != (whole.versions, whole.champion):
        faults["models"] = f"{found.versions} versions, champion {found.champion or 'none'}"
    return faults
