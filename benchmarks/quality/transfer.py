"""`python -m benchmarks.quality transfer FOLDER`: pretrained features against a start from nothing, same minutes.

FOLDER holds one sub-folder of photographs a class. The first arm is what `assay data add` proposes; the rival is the
small network from scratch, given the epochs that take as long.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks.common import assay, figure, fresh_clone, spread, trained

SCRATCH = (
    "task.architecture=small_cnn",
    "task.weights=none",
    "task.transfer.freeze=false",
    "task.transfer.unfreeze=[]",
    "task.transfer.decay=1",
)
PROBE = 4  # epochs that tell how long one takes


def main(folder: str) -> None:
    arms: dict[str, list[tuple[dict[str, float], float]]] = {"transfer": [], "scratch": []}
    with fresh_clone() as clone:
        assay(clone, "data", "add", "photos", str(Path(folder).resolve()))
        for seed in range(3):
            metrics, seconds = trained(clone, "photos", f"seed={seed}")
            _, probe = trained(clone, "photos", f"seed={seed}", *SCRATCH, f"train.epochs={PROBE}")
            _, shorter = trained(clone, "photos", f"seed={seed}", *SCRATCH, "train.epochs=1")
            epochs = max(1, round((seconds - shorter) / (probe - shorter) * (PROBE - 1)) + 1)
            arms["transfer"].append((metrics, seconds))
            arms["scratch"].append(trained(clone, "photos", f"seed={seed}", *SCRATCH, f"train.epochs={epochs}"))
    means = {}
    for arm, found in arms.items():
        accuracies = [metrics["test/accuracy"] for metrics, _ in found]
        means[arm] = statistics.mean(accuracies)
        seeds = [round(value, 4) for value in accuracies]
        seconds = spread([taken for _, taken in found], 1)
        figure(f"photographs, {arm}, test accuracy", mean=round(means[arm], 4), seeds=seeds, seconds=seconds)
    figure("photographs, transfer ahead by points", value=round(100 * (means["transfer"] - means["scratch"]), 1))
