"""Architecture search on the digits: is there a network as good as the hand-made one with a third of its parameters?

The search sees the validation split alone. Its 176 images are too few to choose among the best trials by, so these are
trained five times more, each time with another fifth of the training and validation images kept apart: the lowest mean
loss on what was kept apart wins. The winner is then held against the hand-made network on the test split, which
nothing has looked at, over seeds that are new to both. The minutes are those of the search and of the choice.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assay.config.experiment import ExperimentConfig, parse_experiment, replaced
from assay.config.params import load_params
from assay.config.schema import resolved
from assay.data.dataset import Dataset, read_card
from assay.task import Task
from assay.tasks.classification.data import Images
from assay.train.context import LocalContext
from assay.train.loop import evaluate, train
from benchmarks.common import REPOSITORY, assay, figure, fresh_clone, run, set_value
from benchmarks.in_process import built, context_in, packed

FINALISTS, FOLDS, JUDGING = 14, 5, 8  # trials; parts of the images for the choice; seeds of the comparison
BLOCK: dict[str, Any] = {
    "experiment": "digits",
    "algorithm": "local_search",
    "networks": True,
    "objectives": {"val/loss": "min", "cost/parameters": "min"},
    "set": {"train.workers": 0},
}
Work = tuple[dict[str, Any], int, str]


class Rows(Images):
    """Some rows of several splits, in memory."""

    def __init__(self, parts: Sequence[Images], rows: torch.Tensor) -> None:
        self.__dict__.update(vars(parts[0]))
        self.pixels = torch.cat([part.pixels for part in parts if part.pixels is not None])[rows]
        self.targets = torch.cat([part.targets for part in parts])[rows]

    def __len__(self) -> int:
        return len(self.targets)


@contextmanager
def started(work: Work) -> Iterator[tuple[Task, dict[str, Any], ExperimentConfig, LocalContext]]:
    """An experiment with a seed, ready to be trained."""
    plain, seed, folder = work
    torch.set_num_threads(1)
    config = replaced(parse_experiment(plain, "benchmark"), [("seed", seed)], "benchmark")
    place = Path(folder) / "digits"
    with tempfile.TemporaryDirectory() as own:
        context = context_in(Path(own))
        task, sources = built(config, Dataset(place, read_card(place, "digits"), "0" * 32), context)
        yield task, sources, config, context


def learnt(work: Work) -> tuple[float, int]:
    """(test accuracy, parameters)."""
    with started(work) as (task, sources, config, context):
        outcome = train(task, sources, config, context)
        task.load_state_dict(outcome.weights)
        tested, _ = evaluate(task, sources["test"], "test", 256, context, draw=False)
    return tested["test/accuracy"], int(outcome.notes["parameters"])


def kept_apart(work: Work) -> float:
    """The loss on a fifth of the training and validation images after training on the others; the seed says which."""
    with started(work) as (task, sources, config, context):
        both = [sources["train"], sources["val"]]
        order = torch.from_numpy(np.random.default_rng(0).permutation(sum(map(len, both))))
        fold = torch.arange(len(order)) % FOLDS == work[1] % FOLDS
        parts = {"train": Rows(both, order[~fold]), "val": Rows(both, order[fold])}
        return float(train(task, parts, config, context).metrics["val/loss"])


def finalists(record: dict[str, Any], clone: Path) -> list[ExperimentConfig]:
    """The trials of the lowest validation loss, as experiments."""
    import csv

    with (clone / "results/searches/digits-third/trials.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["status"] == "finished"]
    best = sorted(rows, key=lambda row: float(row["val/loss"]))[:FINALISTS]
    from assay.settings import Settings
    from assay.tune.journal import read_journal
    from assay.usecases.helpers.search_context import SearchContext

    context = SearchContext.of("digits-third", Settings(project=clone))
    events, _ = read_journal(clone / ".assay/runs" / record["search_id"] / "journal.jsonl")
    values = {str(event["trial"]): event["values"] for event in events if event["event"] == "ask"}
    return [context.space.apply(context.experiment, values[row["number"]]) for row in best]


def main(minutes: str = "9") -> None:
    """Search for so many minutes, choose, and compare."""
    hand_made = load_params(REPOSITORY / "params.yaml").experiment("digits")
    with fresh_clone() as clone, tempfile.TemporaryDirectory() as folder:
        packed("digits", load_params(REPOSITORY / "params.yaml"), Path(folder))
        run(clone, "dvc", "repro", "-q", "data@digits")
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            own = pool.map(learnt, [(resolved(hand_made), 100 + seed, folder) for seed in range(JUDGING)])
            most = own[0][1] // 3
            block = {**BLOCK, "limits": {"cost/parameters": most}, "budget": {"minutes": float(minutes)}}
            set_value(clone, "searches", {"digits-third": block})
            began = time.monotonic()
            record = assay(clone, "search", "digits-third")
            found = finalists(record, clone)
            work = [(resolved(config), 50 + fold, folder) for config in found for fold in range(FOLDS)]
            losses = np.array(pool.map(kept_apart, work, chunksize=1)).reshape(len(found), FOLDS)
            winner = found[int(losses.mean(1).argmin())]
            seconds = time.monotonic() - began
            new = pool.map(learnt, [(resolved(winner), 100 + seed, folder) for seed in range(JUDGING)])
    figure(
        "search_digits_networks", minutes=round(seconds / 60, 1), trials=record["trials"], front=len(record["front"]),
        hand_made=round(statistics.mean(accuracy for accuracy, _ in own), 5), hand_made_parameters=own[0][1],
        found=round(statistics.mean(accuracy for accuracy, _ in new), 5), found_parameters=new[0][1],
        seeds=JUDGING, network=resolved(winner)["task"]["network"],
    )  # fmt: skip
