"""Looks for new data at their source, and trains, proves and registers where there are any."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.states import Completed

from assay.config.params import load_params
from assay.config.plugin import FolderSource
from pipelines.flows.train_and_promote import stages_of
from pipelines.runtime.common import assay_flow, holding, overtaken
from pipelines.runtime.promotion import announce, champion_of
from pipelines.runtime.stages import ASSAY, DVC, RETRIED, reproduce, run
from pipelines.runtime.story import verdict


@assay_flow("retrain")
def retrain(experiment: str) -> Any:
    """Do what a new version of the data asks for; nothing, where there is none and every stage is up to date.

    It never commits to git: the artifact names the files that want a commit.

    Returns:
        `ran`: the stages that were stale; `train`, `metrics` and `model`: what `results/` says after it.
    """
    if (late := overtaken()) is not None:
        return late
    with holding() as root:
        stages = stages_of(root, experiment)
        dataset = stages[0].removeprefix("data@")
        news = look(str(root), dataset)
        if not stale(str(root), stages):
            return Completed(message=f"nothing new: {news}; every stage is up to date")
        before = champion_of(root, experiment)
        ran = [stage for stage in stages[:1] if reproduce(str(root), stage)]
        if has_remote(root):
            push(str(root), stages[0])
        ran += [stage for stage in stages[1:] if reproduce(str(root), stage)]
        summary = announce(root, experiment, before)
    return Completed(message=f"{verdict(summary['model'])} ({news})", data={"ran": ran, **summary})


@task(task_run_name="look at {dataset}", **RETRIED)
def look(root: str, dataset: str) -> str:
    """Take a new version of a dataset where its source has changed; what was found, in words."""
    source = load_params(Path(root) / "params.yaml").dataset(dataset).source
    if not isinstance(source, FolderSource):
        return f"{dataset} is made by a program ({source.kind}) and cannot change"
    command = [*ASSAY, "data", "add", dataset, str(Path(root) / source.path), "--json"]
    ended = run(command, root, keep_output=True)
    ended.require_success(f"looking at {source.path}")
    found = json.loads(ended.output)
    news = f"a new version of {dataset}, {found['hash']}" if found["changed"] else f"{dataset} has not changed"
    get_run_logger().info(news)
    return news


@task(task_run_name="what is stale", **RETRIED)
def stale(root: str, stages: list[str]) -> bool:
    """Whether DVC would run any of the stages."""
    ended = run([*DVC, "status", "--json", *stages], root, keep_output=True)
    ended.require_success("dvc status")
    return bool(json.loads(ended.output))


@task(task_run_name="push {stage}", **{**RETRIED, "retry_condition_fn": None})
def push(root: str, stage: str) -> None:
    """Hand the data to DVC's default remote, where the nodes of a cluster and other checkouts get them from.

    Where that fails nothing is trained, so that the next run finds the same work and tries again.
    """
    run([*DVC, "push", "--quiet", stage], root).require_success(f"dvc push {stage}")


def has_remote(root: Path) -> bool:
    """Whether DVC has a default remote."""
    done = subprocess.run([*DVC, "config", "core.remote"], cwd=root, capture_output=True, text=True)
    return bool(done.stdout.strip())
