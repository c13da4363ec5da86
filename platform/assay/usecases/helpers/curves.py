"""The curves of a run: its training and validation metrics by step, as a picture and as a table."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from assay.tracking import artifacts
from assay.train.folder import SPOOL
from assay.train.spool import read

if TYPE_CHECKING:
    from assay.tracking.tracker import Tracker

Curves = dict[str, list[tuple[int, float]]]
"""By metric: (step, value)."""


def read_curves(folder: Path) -> Curves:
    """The training and validation metrics in a run's spool."""
    curves: Curves = {}
    for record, _ in read(folder / SPOOL, 0):
        for name, value in record.metrics.items():
            if name.startswith(("train/", "val/")) and math.isfinite(value):
                curves.setdefault(name, []).append((record.step, value))
    return curves


def log_curves(run_id: str, folder: Path, tracker: Tracker) -> None:
    """Send the curves of the run in `folder` to the tracking store."""
    from assay.report import pictures

    curves = read_curves(folder)
    tracker.log_bytes(run_id, artifacts.CURVES_PICTURE, pictures.curves(curves))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["metric", "step", "value"])
    writer.writerows((name, step, value) for name, points in sorted(curves.items()) for step, value in points)
    tracker.log_bytes(run_id, artifacts.CURVES, text.getvalue().encode())
