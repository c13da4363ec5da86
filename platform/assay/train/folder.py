"""The files in a run's folder `.assay/runs/<run id>`, named once. Workers write them, the driver reads them."""

from __future__ import annotations

CHECKPOINTS = "checkpoints"
SPOOL = "spool.jsonl"
"""Metrics, appended by rank 0."""
SHIPPED = "spool.shipped"
"""The offset in the spool up to which the tracking store has everything."""
STOP = "stop"
"""Its presence asks the workers to save and end."""
WARNINGS = "warnings.log"
"""What workers tell people, a line each."""
OUTCOME = "outcome.json"
"""How the training ended, written by rank 0."""
FAILURE = "failure.json"
"""Why a worker failed; missing where workers died without a word."""
LOCK = "lock"
"""Held by the process that works on the run."""
