"""A search within the minutes of a night; the next night goes on where this one stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.states import Completed

from assay.config.params import load_params
from assay.usecases.helpers.results import SearchResults
from pipelines.runtime.common import assay_flow, holding, overtaken
from pipelines.runtime.stages import ASSAY, RETRIED, reproduce, run
from pipelines.runtime.story import key

STOP_MINUTES = 30.0
"""How long after its minutes a search may still finish trials and draw its page."""


@assay_flow("nightly-search")
def nightly_search(search: str, minutes: float = 60.0) -> Any:
    """Bring the data up to date, and search.

    Args:
        minutes: the most that the search works now, beside the seconds that its trials need to stop.

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
    create_table_artifact(rows, key=key(search, "front"), description=f"search {record['search_id']}")
    return Completed(message=f"{record['trials']} trials: {record['reason']}", data=record)


@task(task_run_name="search {search}", **RETRIED)
def tune(root: str, search: str, minutes: float) -> dict[str, Any]:
    """Search for so many minutes, or until the search's own budget ends it; its record."""
    command = [*ASSAY, "tune", search, "--minutes", str(minutes)]
    run(command, root, seconds=(minutes + STOP_MINUTES) * 60).require_success(f"search {search}")
    record: dict[str, Any] = json.loads(SearchResults.of(Path(root), search).record.read_text())
    get_run_logger().info("%s: %s trials, %s", search, record["trials"], record["reason"])
    return record
