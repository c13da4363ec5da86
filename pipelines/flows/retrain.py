"""Looks for new data at their source; if there are any, trains, evaluates and registers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.states import Completed

from assay.cli.data import printable, rejections
from assay.config.params import load_params
from assay.config.plugin import FolderSource
from pipelines.runtime.artifacts import verdict
from pipelines.runtime.flow import assay_flow, holding
from pipelines.runtime.late_runs import overtaken
from pipelines.runtime.project import require_stages
from pipelines.runtime.promotion import announce, champion_of
from pipelines.runtime.stages import ASSAY, DVC, RETRIED, reproduce, run, stages_of


@assay_flow("retrain")
def retrain(experiment: str) -> State[dict[str, Any] | None]:
    """Take new data and run every stage that is stale; do nothing if every stage is up to date.

    It never commits to git: the artifact names the files to be committed.

    Returns:
        `ran`: the stages that were stale; `train`, `metrics` and `model`: what `results/` holds afterwards. None if
        nothing was stale.
    """
    if (late := overtaken()) is not None:
        return late
    with holding() as root:
        require_stages(root)
        stages = stages_of(root, experiment)
        dataset = stages[0].removeprefix("data@")
        news = add_new_data(str(root), dataset)
        if not is_stale(str(root), stages):
            return Completed(message=f"nothing new: {news}; every stage is up to date")
        before = champion_of(root, experiment)
        ran = [stage for stage in stages[:1] if reproduce(str(root), stage)]
        if has_remote(root):
            push(str(root), stages[0])
        ran += [stage for stage in stages[1:] if reproduce(str(root), stage)]
        summary = announce(root, experiment, before)
    return Completed(message=f"{verdict(summary['model'])} ({news})", data={"ran": ran, **summary})


@task(task_run_name="look at {dataset}", **RETRIED)
def add_new_data(root: str, dataset: str) -> str:
    """Take a new version of a dataset if its source has changed; returns what was found, in words."""
    source = load_params(Path(root) / "params.yaml").dataset(dataset).source
    if not isinstance(source, FolderSource):
        return f"{dataset} is generated ({source.kind}) and cannot change"
    command = [*ASSAY, "data", "add", dataset, str(Path(root) / source.path), "--json"]
    done = run(command, root, keep_output=True)
    done.require_success(f"looking at {source.path}")
    found = json.loads(done.output)
    news = f"a new version of {dataset}, {found['hash']}" if found["changed"] else f"{dataset} has not changed"
    get_run_logger().info(news)
    if found["changed"]:
        log_contents(found)
    return news


def log_contents(found: dict[str, Any]) -> None:
    """What is in a new version, and which files were left out of it: what `assay data add` shows."""
    log = get_run_logger()
    splits = ", ".join(f"{split} {count}" for split, count in found["splits"].items())
    log.info("%d samples (%s)", found["samples"], splits)
    for line in rejections(found, f" rejected; to list them: assay data check {found['name']} --json"):
        log.warning("%s", printable(line))


@task(task_run_name="what is stale", **RETRIED)
def is_stale(root: str, stages: list[str]) -> bool:
    """Whether DVC would run any of the stages."""
    done = run([*DVC, "status", "--json", *stages], root, keep_output=True)
    done.require_success("dvc status")
    return bool(json.loads(done.output))


@task(task_run_name="push {stage}", **{**RETRIED, "retry_condition_fn": None})
def push(root: str, stage: str) -> None:
    """Push the data to DVC's default remote, from which the nodes of a cluster and other checkouts fetch them.

    If that fails, nothing is trained, so that the next run finds the same work and tries again.
    """
    run([*DVC, "push", "--quiet", stage], root).require_success(f"dvc push {stage}")


def has_remote(root: Path) -> bool:
    """Whether DVC has a default remote."""
    done = subprocess.run([*DVC, "config", "core.remote"], cwd=root, capture_output=True, text=True)
    return bool(done.stdout.strip())
