"""Face or not, with frozen ImageNet features, as shipped in params.yaml: five seeds on one test split of a fifth."""

from __future__ import annotations

import statistics

from benchmarks.common import figure, fresh_clone, set_value, spread, trained

SPLIT = {"train": 0.78, "val": 0.02, "test": 0.2}
"""Of those that are not tested, a few stand by as the validation split that the platform insists on."""


def main() -> None:
    with fresh_clone() as clone:
        found = []
        set_value(clone, "datasets.faces.split", SPLIT)
        for seed in range(5):
            set_value(clone, "datasets.faces.seed", seed)
            found.append(trained(clone, "faces", f"seed={seed}"))
    accuracies = [metrics["test/accuracy"] for metrics, _ in found]
    figure(
        "faces, test accuracy, mean of 5 seeds",
        mean=round(statistics.mean(accuracies), 4),
        seeds=[round(value, 4) for value in accuracies],
        seconds=spread([seconds for _, seconds in found], 1),
    )
