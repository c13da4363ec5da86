"""Architecture search on the digits: is there a network as good as the hand-made one with a third of its parameters?

The search sees the validation split alone. The best of its trials are trained with other seeds, the one with the
lowest mean loss on the validation split wins, and it is then held against the hand-made network on the test split,
which nothing has looked at, over seeds that are new to both. The minutes are those of the search and of the choice.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from assay.config import ExperimentConfig, load_params, parse_experiment, replaced
from assay.data.dataset import Dataset, read_card
from assay.schema import resolved
from assay.train.loop import evaluate, train
from benchmarks.common import REPOSITORY, assay, figure, fresh_clone, run, set_value
from benchmarks.in_process import built, context_in, packed

FINALISTS, CHOOSING, JUDGING = 6, 4, 8  # trials; seeds of the choice; seeds of the comparison
BLOCK: dict[str, Any] = {
    "experiment": "digits",
    "algorithm": "local_search",
    "networks": True,
    "objectives": {"val/loss": "min", "cost/parameters": "min"},
    "set": {"train.workers": 0},
}
Work = tuple[dict[str, Any], int, str]


def learnt(work: Work) -> tuple[float, float, int]:
    """(validation loss, test accuracy, parameters) of an experiment with a seed."""
    plain, seed, folder = work
    torch.set_num_threads(1)
    config = replaced(parse_experiment(plain, "benchmark"), [("seed", seed)], "benchmark")
    place = Path(folder) / "digits"
    with tempfile.TemporaryDirectory() as own:
        context = context_in(Path(own))
        task, sources = built(config, Dataset(place, read_card(place, "digits"), "0" * 32), context)
        outcome = train(task, sources, config, context)
        task.load_state_dict(outcome.weights)
        tested, _ = evaluate(task, sources["test"], "test", 256, context, draw=False)
    return outcome.metrics["val/loss"], tested["test/accuracy"], int(outcome.facts["parameters"])


def finalists(record: dict[str, Any], clone: Path) -> list[ExperimentConfig]:
    """The trials of the lowest validation loss, as experiments."""
    import csv

    with (clone / "results/searches/digits-third/trials.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["status"] == "finished"]
    best = sorted(rows, key=lambda row: float(row["val/loss"]))[:FINALISTS]
    from assay.jobs.search_context import SearchContext
    from assay.settings import Settings
    from assay.tune.journal import read

    context = SearchContext.of("digits-third", Settings(project=clone))
    events, _ = read(clone / ".assay/runs" / record["search_id"] / "journal.jsonl")
    values = {str(event["trial"]): event["values"] for event in events if event["event"] == "ask"}
    return [context.space.apply(context.experiment, values[row["number"]]) for row in best]


def main(minutes: str = "10") -> None:
    """Search for so many minutes, choose, and compare."""
    hand_made = load_params(REPOSITORY / "params.yaml").experiment("digits")
    with fresh_clone() as clone, tempfile.TemporaryDirectory() as folder:
        packed("digits", load_params(REPOSITORY / "params.yaml"), Path(folder))
        run(clone, "dvc", "repro", "-q", "data@digits")
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            own = pool.map(learnt, [(resolved(hand_made), 100 + seed, folder) for seed in range(JUDGING)])
            most = own[0][2] // 3
            block = {**BLOCK, "limits": {"cost/parameters": most}, "budget": {"minutes": float(minutes)}}
            set_value(clone, "searches", {"digits-third": block})
            began = time.monotonic()
            record = assay(clone, "search", "digits-third")
            found = finalists(record, clone)
            work = [(resolved(config), 50 + seed, folder) for config in found for seed in range(CHOOSING)]
            losses = [loss for loss, _, _ in pool.map(learnt, work)]
            means = [statistics.mean(losses[i * CHOOSING : (i + 1) * CHOOSING]) for i in range(len(found))]
            winner = found[means.index(min(means))]
            seconds = time.monotonic() - began
            new = pool.map(learnt, [(resolved(winner), 100 + seed, folder) for seed in range(JUDGING)])
    figure(
        "search_digits_networks", minutes=round(seconds / 60, 1), trials=record["trials"], front=len(record["front"]),
        hand_made=round(statistics.mean(accuracy for _, accuracy, _ in own), 5), hand_made_parameters=own[0][2],
        found=round(statistics.mean(accuracy for _, accuracy, _ in new), 5), found_parameters=new[0][2],
        seeds=JUDGING, network=resolved(winner)["task"]["network"],
    )  # fmt: skip
