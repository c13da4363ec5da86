"""What follows when a model was held against its gate: artifacts, and a notification of a new champion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import runtime
from prefect.context import FlowRunContext

from assay.settings import Settings
from assay.usecases.helpers.results import ExperimentResults
from pipelines.runtime.artifacts import publish_artifacts, read_results, verdict
from pipelines.runtime.flow import notify


def champion_of(root: Path, experiment: str) -> str | None:
    """The version that was champion when the experiment was last registered."""
    results = ExperimentResults.of(root, experiment)
    model = results.read(results.model) if results.model.exists() else {}
    return model["version"] if model.get("alias") else None


def announce(root: Path, experiment: str, before: str | None) -> dict[str, Any]:
    """Publish the artifacts, and notify of a champion other than the one `before`; returns what `results/` holds."""
    summary = read_results(root, experiment)
    publish_artifacts(root, experiment, summary)
    notify_of_champion(summary["model"], before)
    return summary


def notify_of_champion(model: dict[str, Any], before: str | None) -> None:
    context = FlowRunContext.get()
    if model["alias"] and model["version"] != before and context is not None:
        notify(Settings(), "promoted", runtime.flow_run.flow_name, context.flow_run, verdict(model), model["run_id"])
