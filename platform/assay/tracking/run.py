"""A run as MLflow knows it, in plain data: what leaves `tracking/`, and what travels between its processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RunInfo:
    """Times are in milliseconds since 1970; a run that has not ended has no `end_time`."""

    run_id: str
    experiment_id: str
    status: str
    start_time: int
    end_time: int | None
    artifact_uri: str


@dataclass(frozen=True)
class RunData:
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Run:
    """Of the same shape as MLflow's own entity."""

    info: RunInfo
    data: RunData


def plain_run(run: Any) -> Run:
    """The plain form of an `mlflow.entities.Run`."""
    info, data = run.info, run.data
    return Run(
        RunInfo(
            info.run_id, info.experiment_id, info.status, info.start_time, info.end_time or None, info.artifact_uri
        ),
        RunData(dict(data.tags), dict(data.params), dict(data.metrics)),
    )
