"""What a finished run leaves for DVC and for people: a small record, the curves as table and picture."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.files import write_json
from assay.train.folder import SPOOL
from assay.train.spool import read

if TYPE_CHECKING:
    from assay.tracking.tracker import Tracker

WEIGHTS = "model.safetensors"
CURVES = "pictures/curves.csv"


def series(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The training and validation metrics of a run's spool, by step."""
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


def write(folder: Path, record: Mapping[str, Any], tracker: Tracker) -> None:
    """The outputs of the DVC stage `train`: the same for the same run, whoever asks and however often."""
    folder.mkdir(parents=True, exist_ok=True)
    passing = ("trained_steps", "status", "resumed_from", "seconds")
    write_json(folder / "train.json", {name: value for name, value in record.items() if name not in passing})
    (folder / "curves.csv").write_bytes(tracker.read_bytes(record["run_id"], CURVES))
