"""`python -m benchmarks.quality bccd FOLDER`: blood cells in Pascal VOC's layout, its own trainval and test."""

from __future__ import annotations

from pathlib import Path

from benchmarks.common import assay, figure, fresh_clone, trained


def main(folder: str) -> None:
    with fresh_clone() as clone:
        added = assay(clone, "data", "add", "bccd", str(Path(folder).resolve()), "--kind", "voc")
        metrics, seconds = trained(clone, "bccd")
    figure("bccd, samples", splits=added["splits"], rejected=len(added["rejected"]))
    found = {name: round(value, 4) for name, value in metrics.items() if name.startswith("test/map")}
    figure("bccd, compact detector", **found, seconds=round(seconds, 1))
