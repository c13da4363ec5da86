"""Switches off what phones home. Free of pydantic, for every command calls it before it does anything else."""

from __future__ import annotations

import os

SILENCE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
"""Switches off what phones home, and bars for single files, for this process and its children."""


def quiet() -> None:
    """Apply `SILENCE` where the user has not decided otherwise. Called by entry points, never at import."""
    for name, value in SILENCE.items():
        os.environ.setdefault(name, value)
