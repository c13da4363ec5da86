"""A search within the minutes of a night; the next night goes on where this one stopped."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact

from pipelines.stages import StageFailed, reproduce, run


@task(task_run_name="search {search}", cache_policy=None, persist_result=False)
def tune(root: str, search: str, minutes: float) -> dict[str, Any]:
    """Search for so many minutes, or until the search's own budget ends it; its record."""
    program = "from assay.cli.main import main; main()"
    code = run([sys.executable, "-c", program, "tune", search, "--minutes", str(minutes)], root)
    if code:
        raise StageFailed(f"search {search} ended with exit code {code}; its message is above")
    record: dict[str, Any] = json.loads((Path(root) / "results" / "searches" / search / "search.json").read_text())
    get_run_logger().info("%s: %s trials, %s", search, record["trials"], record["reason"])
    return record


@flow(name="nightly-search", flow_run_name="nightly-search-{search}")
def nightly_search(root: str, search: str, dataset: str, minutes: float) -> dict[str, Any]:
    """Bring the data up to date, and search.

    Args:
        minutes: the most that the search works now, beside the seconds that its trials need to stop.

    Returns:
        The search's record: `best`, `front`, and `reason`, why it ended.
    """
    reproduce(root, f"data@{dataset}")
    record = tune(root, search, minutes)
    rows = [{"trial": found["trial"], "run": found["run_id"], **found["metrics"]} for found in record["front"]]
    key = f"{search}-front".replace("_", "-")  # Prefect's keys know no underscore
    create_table_artifact(rows, key=key, description=f"search {record['search_id']}")
    return record
