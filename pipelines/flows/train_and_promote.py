"""The main job: from a dataset version to a champion model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect.states import Completed

from assay.config.params import load_params
from pipelines.runtime.common import assay_flow, holding, overtaken
from pipelines.runtime.promotion import announce, champion_of
from pipelines.runtime.stages import reproduce
from pipelines.runtime.story import read_results, verdict

STAGES = ("train", "evaluate", "register")


@assay_flow("train-and-promote")
def train_and_promote(experiment: str) -> Any:
    """Bring the stages of an experiment up to date, in order; what is unchanged is skipped.

    Returns:
        `ran`: the stages that were stale; `train`, `metrics` and `model`: what `results/` says after it.
    """
    if (late := overtaken()) is not None:
        return late
    with holding() as root:
        before = champion_of(root, experiment)
        ran = [stage for stage in stages_of(root, experiment) if reproduce(str(root), stage)]
        summary = announce(root, experiment, before) if ran else read_results(root, experiment)
    said = verdict(summary["model"])
    return Completed(message=said if ran else f"nothing new; {said}", data={"ran": ran, **summary})


def stages_of(root: Path, experiment: str) -> list[str]:
    dataset = load_params(root / "params.yaml").experiment(experiment).data
    return [f"data@{dataset}", *(f"{stage}@{experiment}" for stage in STAGES)]
