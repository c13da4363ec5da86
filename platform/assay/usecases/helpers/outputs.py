"""What a finished run leaves for DVC and for people: a small record, the curves as table and picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.files import write_json

if TYPE_CHECKING:
    from assay.tracking.tracker import Tracker

WEIGHTS = "model.safetensors"
CURVES = "pictures/curves.csv"


def write(folder: Path, record: Mapping[str, Any], tracker: Tracker) -> None:
    """The outputs of the DVC stage `train`: the same for the same run, whoever asks and however often."""
    folder.mkdir(parents=True, exist_ok=True)
    passing = ("trained_steps", "status", "resumed_from", "seconds")
    write_json(folder / "train.json", {name: value for name, value in record.items() if name not in passing})
    (folder / "curves.csv").write_bytes(tracker.read_bytes(record["run_id"], CURVES))
