"""The files in a run's folder `.assay/runs/<run id>`, named once. Workers write them, the driver reads them."""

from __future__ import annotations

from pathlib import Path

CHECKPOINTS = "checkpoints"
SPOOL = "spool.jsonl"
"""Metrics, appended by rank 0, a sealed line each."""
SYNCED = "spool.synced"
"""The size of the spool at the last checkpoint."""
SHIPPED = "spool.shipped"
"""The offset in the spool up to which the tracking store has all metrics, and whether the spool was damaged."""
ATTEMPT = "attempt"
"""The name of the attempt whose state this is, if the run is kept in object storage."""
SENT = "sent"
"""Its presence says that object storage has everything."""
STORED = "spool.stored"
"""The offset up to which object storage has the spool, if the run is kept there: nothing else is shipped."""
STEPS = "steps"
"""How many steps the whole run has, written by rank 0."""
STARTS = "starts.jsonl"
"""Where each start of the workers took up the training, appended by rank 0."""
STOP = "stop"
"""Its presence requests a stop: the workers save and end."""
LOG = "told.log"
"""Lines for people, written by rank 0."""
PICTURES = "pictures"
"""Pictures drawn during the training, for tasks that are watched."""
OUTCOME = "outcome.json"
"""How the training ended, written by rank 0."""
OUTCOME_NEEDS = ("finished", "steps", "trained_steps", "resumed_from", "metrics", "weights_sha256", "facts")
"""The names in it."""
FAILURE = "failure.json"
"""Why a worker failed; missing if workers died."""
LOCK = "lock"
"""Held by the process that owns the run."""


def read_steps(folder: Path) -> int | None:
    """How many steps the run in a folder has; None if that is not written, or cannot be read."""
    try:
        steps = int((folder / STEPS).read_bytes())
    except (OSError, ValueError):
        return None
    return steps if steps > 0 else None
