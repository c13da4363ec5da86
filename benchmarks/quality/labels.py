"""Which digits are in a scene: multi-label classification, three seeds of the preset `large`."""

from __future__ import annotations

import statistics

from benchmarks.common import figure, fresh_clone, spread, trained

PRESET = "large"


def main() -> None:
    with fresh_clone() as clone:
        found = [trained(clone, "digit_scenes_labels", f"seed={seed}", preset=PRESET) for seed in range(3)]
    scores = [metrics["test/macro_f1"] for metrics, _ in found]
    figure(
        "multi-label digit_scenes, test macro-F1, mean of 3 seeds",
        mean=round(statistics.mean(scores), 4),
        seeds=[round(value, 4) for value in scores],
        seconds=spread([seconds for _, seconds in found], 1),
    )
