"""The curves of a run, drawn from the metrics that its workers wrote."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path

from assay.train.folder import SPOOL
from assay.train.spool import read


def series(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The training and validation metrics in the spool of a run's folder: (step, value) by name."""
    found: dict[str, list[tuple[int, float]]] = {}
    for record, _ in read(folder / SPOOL, 0):
        for name, value in record.metrics.items():
            if name.startswith(("train/", "val/")) and math.isfinite(value):
                found.setdefault(name, []).append((record.step, value))
    return found


def curves(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The curves of a run as a picture and as a table (metric, step, value)."""
    from assay.report import pictures

    found = series(folder)
    yield "curves.png", pictures.curves(found)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["metric", "step", "value"])
    writer.writerows((name, step, value) for name, points in sorted(found.items()) for step, value in points)
    yield "curves.csv", text.getvalue().encode()
