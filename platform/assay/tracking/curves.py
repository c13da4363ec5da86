"""The curves of a run: its training and validation metrics by step, as a picture and as a table."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from assay.tracking.shipped import has_lost_points
from assay.train.folder import SPOOL
from assay.train.spool import read_spool

if TYPE_CHECKING:
    from assay.tracking.tracker import Point

Curves = dict[str, list[tuple[int, float]]]
"""By metric: (step, value)."""


def read_curves(folder: Path, stored: Callable[[], Iterable[Point]]) -> Curves:
    """The training and validation metrics in the spool of a run's folder.

    Args:
        stored: the points that the tracking store has; asked if the spool is damaged.
    """
    points = {(name, step): value for name, value, _, step in (stored() if has_lost_points(folder) else ())}
    for record, _ in read_spool(folder / SPOOL, 0) if (folder / SPOOL).exists() else ():
        points |= {(name, record.step): value for name, value in record.metrics.items()}
    curves: Curves = {}
    for (name, step), value in sorted(points.items()):
        if name.startswith(("train/", "val/")) and abs(value) < sys.float_info.max:  # as MLflow keeps infinity
            curves.setdefault(name, []).append((step, value))
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
