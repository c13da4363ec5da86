"""What every program of Assay does first. Free of pydantic, so that it costs nothing."""

from __future__ import annotations

import gc
import os

SILENCE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
"""Switches off what phones home, and bars for single files, for this process and its children."""

COLLECT_EVERY = 10_000
"""New objects between two garbage collections. Python's 700 make a fifth of the time that torch and MLflow take to
import; nothing that they create is garbage."""


def start_program() -> None:
    """Apply `SILENCE` unless the user has decided otherwise, and collect garbage less often.

    Called by entry points, never at import.
    """
    for name, value in SILENCE.items():
        os.environ.setdefault(name, value)
    gc.set_threshold(COLLECT_EVERY)
