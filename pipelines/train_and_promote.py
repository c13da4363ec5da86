"""The main job: from a dataset version to a champion model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact

from pipelines.stages import reproduce

STAGES = ("train", "evaluate", "register")


@flow(name="train-and-promote", flow_run_name="train-and-promote-{experiment}")
def train_and_promote(root: str, experiment: str, dataset: str) -> dict[str, Any]:
    """Reproduce the stages of an experiment in order.

    Returns:
        `ran`: the stages that were stale; `train`, `metrics` and `model`: what `results/` says after it.
    """
    stages = [f"data@{dataset}", *(f"{stage}@{experiment}" for stage in STAGES)]
    ran = [stage for stage in stages if reproduce(root, stage)]
    results = Path(root) / "results" / experiment
    summary = {name: json.loads((results / f"{name}.json").read_text()) for name in ("train", "metrics", "model")}
    rows = [{"metric": name, "value": value} for name, value in summary["metrics"].items()]
    key = f"{experiment}-metrics".replace("_", "-")  # Prefect's keys know no underscore
    create_table_artifact(rows, key=key, description=f"run {summary['train']['run_id']}")
    return {"ran": ran, **summary}
