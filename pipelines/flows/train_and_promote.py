"""The main flow: from a dataset version to a champion model."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed

from pipelines.runtime.artifacts import read_results, verdict
from pipelines.runtime.flow import assay_flow, holding
from pipelines.runtime.late_runs import overtaken
from pipelines.runtime.promotion import announce, champion_of
from pipelines.runtime.stages import reproduce, stages_of


@assay_flow("train-and-promote")
def train_and_promote(experiment: str) -> State[dict[str, Any]]:
    """Bring the stages of an experiment up to date, in order; what is unchanged is skipped.

    Returns:
        `ran`: the stages that were stale; `train`, `metrics` and `model`: what `results/` holds afterwards.
    """
    if (late := overtaken()) is not None:
        return late
    with holding() as root:
        before = champion_of(root, experiment)
        ran = [stage for stage in stages_of(root, experiment) if reproduce(str(root), stage)]
        summary = announce(root, experiment, before) if ran else read_results(root, experiment)
    decision = verdict(summary["model"])
    return Completed(message=decision if ran else f"nothing new; {decision}", data={"ran": ran, **summary})
