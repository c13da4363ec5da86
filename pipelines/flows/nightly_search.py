"""A search within the minutes of a night; the next night continues where this one stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from assay.config.params import load_params
from assay.usecases.helpers.results import SearchResults
from pipelines.runtime.artifacts import artifact_key
from pipelines.runtime.flow import assay_flow, holding
from pipelines.runtime.late_runs import overtaken
from pipelines.runtime.stages import ASSAY, RETRIED, reproduce, run

STOP_MINUTES = 30.0
"""How long after its minutes a search may still finish trials and draw its page."""


@assay_flow("nightly-search")
def nightly_search(search: str, minutes: float = 60.0) -> State[dict[str, Any]]:
    """Bring the data up to date, and search.

    Args:
        minutes: the most that the search runs now, besides the seconds that its trials take to stop.

    Returns:
        The search's record: `best`, `front`, and `reason`, why it ended.
    """
    if (late := overtaken()) is not None:
        return late
    with holding() as root:
        params = load_params(root / "params.yaml")
        reproduce(str(root), f"data@{params.experiment(params.search(search).experiment).data}")
        record = tune(str(root), search, minutes)
    rows = [{"trial": found["trial"], "run": found["run_id"], **found["metrics"]} for found in record["front"]]
    create_table_artifact(rows, key=artifact_key(search, "front"), description=f"search {record['search_id']}")
    return Completed(message=f"{record['trials']} trials: {record['reason']}", data=record)


@task(task_run_name="search {search}", **RETRIED)
def tune(root: str, search: str, minutes: float) -> dict[str, Any]:
    """Search for at most `minutes`, or until the search's budget ends it; returns its record."""
    command = [*ASSAY, "tune", search, "--minutes", str(minutes)]
    run(command, root, seconds=(minutes + STOP_MINUTES) * 60).require_success(f"search {search}")
    record = SearchResults.of(Path(root), search).read()
    get_run_logger().info("%s: %s trials, %s", search, record["trials"], record["reason"])
    return record
