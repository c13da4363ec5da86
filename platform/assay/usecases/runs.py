"""`assay runs`: the runs in the tracking store, newest first."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from assay.errors import InputError
from assay.settings import Settings
from assay.tracking.known_store import known
from assay.tracking.provenance import KEPT, PREFIX
from assay.tracking.remote import open_tracker

KINDS = ("run", "search", "trial")


def list_runs(kind: str, experiment: str | None, limit: int, settings: Settings) -> dict[str, Any]:
    """The newest runs of a kind, of one experiment or of all experiments.

    `metrics` of a finished run are those of the weights that it kept; of others, the newest.

    Raises:
        InputError: no such kind, or no such experiment in the tracking store.
    """
    if kind not in KINDS:
        raise InputError(f"--kind: must be {', '.join(KINDS[:-1])} or {KINDS[-1]}, not {kind!r}")
    if limit < 1:
        raise InputError(f"--limit: must be 1 or more, not {limit}")
    tracker = known(open_tracker(settings))
    found = []
    for run in tracker.newest(kind, experiment, limit):
        tags = run.data.tags
        found.append(
            {
                "run_id": run.info.run_id,
                "search_id": tags.get(f"{PREFIX}search_id") or (run.info.run_id if kind == "search" else None),
                "experiment": tags.get(f"{PREFIX}experiment"),
                "status": run.info.status,
                "metrics": {**run.data.metrics, **json.loads(tags.get(KEPT, "{}"))},
                "started": datetime.fromtimestamp(run.info.start_time / 1000, UTC).isoformat(timespec="seconds"),
                "reason": tags.get(f"{PREFIX}reason", ""),
            }
        )
    return {"runs": found}
