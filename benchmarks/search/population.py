"""Population based training against random search of the same number of epochs, both through `assay tune`."""

from __future__ import annotations

from typing import Any

from benchmarks.common import assay, figure, fresh_clone, run, spread
from benchmarks.search.kills import write

SPACE = {
    "optimizer.lr": {"loguniform": [1e-4, 1e-1]},
    "optimizer.weight_decay": {"loguniform": [1e-3, 1.0]},
    "task.dropout": {"uniform": [0.0, 0.6]},
}
POPULATION, EPOCHS, INTERVAL = 8, 20, 2


def block(algorithm: str, trials: int, seed: int) -> dict[str, Any]:
    return {
        "experiment": "digits", "algorithm": algorithm, "budget": {"trials": trials}, "space": SPACE, "seed": seed,
        "objectives": {"val/loss": "min"}, "population": POPULATION, "interval": INTERVAL,
        "set": {"train.workers": 0, "train.epochs": EPOCHS, "task.width": 8, "optimizer.schedule": "constant"},
    }  # fmt: skip


def main(seeds: str = "5") -> None:
    """The lowest loss on the validation split, by seed; and the test accuracy of that trial."""
    with fresh_clone() as clone:
        run(clone, "dvc", "repro", "-q", "data@digits")
        searches = {}
        for seed in range(int(seeds)):
            searches[f"pbt-{seed}"] = block("pbt", POPULATION * EPOCHS // INTERVAL, seed)
            searches[f"random-{seed}"] = block("random", POPULATION, seed)
        write(clone, searches)
        losses: dict[str, list[float]] = {"pbt": [], "random": []}
        tests: dict[str, list[float]] = {"pbt": [], "random": []}
        for name in searches:
            record = assay(clone, "tune", name)
            assert record["epochs"] == POPULATION * EPOCHS, record
            kind = name.partition("-")[0]
            losses[kind].append(record["best"]["metrics"]["val/loss"])
            tested = assay(clone, "evaluate", record["best"]["run_id"])
            tests[kind].append(tested["metrics"]["test/accuracy"])
    ahead = sum(ours < other for ours, other in zip(losses["pbt"], losses["random"], strict=True))
    figure(
        "population", seeds=int(seeds), ahead=ahead, pbt=spread(losses["pbt"], 4), random=spread(losses["random"], 4),
        pbt_test=spread(tests["pbt"], 4), random_test=spread(tests["random"], 4),
    )  # fmt: skip
