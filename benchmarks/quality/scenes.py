"""The compact detector on the digit scenes, three seeds."""

from __future__ import annotations

import statistics

from benchmarks.common import figure, fresh_clone, spread, trained

PRESET = "large"


def main() -> None:
    with fresh_clone() as clone:
        found = [trained(clone, "digit_scenes", f"seed={seed}", preset=PRESET) for seed in range(3)]
    for name in ("test/map_50", "test/map"):
        values = [metrics[name] for metrics, _ in found]
        seeds = [round(value, 4) for value in values]
        figure(f"digit_scenes, {name}, mean of 3 seeds", mean=round(statistics.mean(values), 4), seeds=seeds)
    figure("digit_scenes, seconds of training", **spread([seconds for _, seconds in found], 1))
