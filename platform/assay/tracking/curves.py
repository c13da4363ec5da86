"""The curves of a run: its training and validation metrics by step, as a picture and as a table."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from assay.train.folder import SPOOL
from assay.train.spool import read_spool

Curves = dict[str, list[tuple[int, float]]]
"""By metric: (step, value)."""


def read_curves(folder: Path) -> Curves:
    """The training and validation metrics in the spool of a run's folder."""
    curves: Curves = {}
    for record, _ in read_spool(folder / SPOOL, 0):
        for name, value in record.metrics.items():
            if name.startswith(("train/", "val/")) and math.isfinite(value):
                curves.setdefault(name, []).append((record.step, value))
    return curves


def draw_curves(curves: Curves) -> bytes:
    """Curves as a PNG."""
    from assay.report import pictures

    return pictures.curves(curves)


def curves_table(curves: Curves) -> bytes:
    """Curves as CSV with the columns metric, step and value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["metric", "step", "value"])
    writer.writerows((name, step, value) for name, points in sorted(curves.items()) for step, value in points)
    return text.getvalue().encode()
