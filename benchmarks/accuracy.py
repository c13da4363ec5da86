"""Test accuracy on the digits through the platform as shipped, over five seeds."""

from __future__ import annotations

import statistics

from benchmarks.common import assay, assign, figure, fresh_clone, run

SEEDS = range(5)


def main() -> None:
    with fresh_clone() as clone:
        run(clone, "dvc", "repro", "-q", "data@digits")
        found = []
        for seed in SEEDS:
            record = assay(clone, "train", "digits", *assign(f"seed={seed}"))
            found.append(assay(clone, "evaluate", record["run_id"])["metrics"]["test/accuracy"])
    rounded = [round(value, 4) for value in found]
    figure("digits test accuracy, mean of 5 seeds", mean=round(statistics.mean(found), 4), seeds=rounded)


if __name__ == "__main__":
    main()
