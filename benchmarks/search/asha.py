"""ASHA against training every configuration in full: the digits network, 64 configurations, by seed.

Each configuration is trained in full once, by the loop that trials run, and its evaluations are kept. The search then
sees them epoch by epoch, two trials at a time: training is repeatable to the bit, so it decides as it would live.
"""

from __future__ import annotations

import heapq
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assay.config.params import load_params
from assay.config.search import SearchConfig
from assay.data.dataset import Dataset, read_card
from assay.train.loop import Training, evaluate
from assay.tune.search import Search
from assay.tune.space import bound
from benchmarks.common import REPOSITORY, figure, spread
from benchmarks.in_process import built, context_in, packed

CONFIGURATIONS, EPOCHS = 64, 20
SPACE = {
    "optimizer.lr": {"loguniform": [1e-4, 1e-1]},
    "optimizer.weight_decay": {"loguniform": [1e-3, 0.5]},
    "task.dropout": {"uniform": [0.0, 0.6]},
    "task.width": {"choice": [8, 12, 16]},
}


def block(seed: int) -> dict[str, Any]:
    return {
        "experiment": "digits", "algorithm": "asha", "budget": {"trials": CONFIGURATIONS}, "space": SPACE, "seed": seed,
        "set": {"train.epochs": EPOCHS, "train.workers": 0},
    }  # fmt: skip


def search_of(seed: int) -> Any:
    experiment = load_params(REPOSITORY / "params.yaml").experiment("digits")
    config = SearchConfig.model_validate(block(seed))
    space, fixed = bound("asha", config, experiment)
    return Search(config, space, fixed), space, fixed


def trained(work: tuple[int, int, dict[str, Any], str]) -> tuple[int, list[float], list[float]]:
    """(configuration, best validation accuracy so far by epoch, test accuracy of the weights that have it)."""
    number, seed, values, folder = work
    torch.set_num_threads(1)
    _, space, fixed = search_of(seed)
    config = space.apply(fixed, values).model_copy(update={"seed": seed})
    place = Path(folder) / "digits"
    context = context_in(Path(folder) / f"{seed}-{number}")
    task, sources = built(config, Dataset(place, read_card(place, "digits"), "0" * 32), context)
    training = Training(task, sources, config, context)
    best, tests = [], []
    for epoch in range(1, EPOCHS + 1):
        step = training.position.best_step
        training.advance(epoch)
        best.append(training.position.best_metrics["val/accuracy"])
        if training.position.best_step != step or not tests:
            tests.append(evaluate(task, sources["test"], "test", 256, context, draw=False)[0]["test/accuracy"])
        else:
            tests.append(tests[-1])
    return number, best, tests


def replayed(seed: int, curves: dict[int, tuple[list[float], list[float]]]) -> tuple[float, int]:
    """(test accuracy of the search's best, epochs that it trained), with two slots that take an epoch in equal time."""
    search, _, _ = search_of(seed)
    now, slots, running = 0, 2, []
    while True:
        while len(running) < slots and (trial := search.next()) is not None:
            heapq.heappush(running, (now + 1, trial.number, 1))
        if not running:
            break
        now, number, epoch = heapq.heappop(running)
        metrics = {"val/accuracy": curves[number][0][epoch - 1]}
        last = epoch == EPOCHS
        if search.report(number, epoch, metrics) or last:
            search.end(number, "finished" if last else "stopped", metrics)
        else:
            heapq.heappush(running, (now + 1, number, epoch + 1))
    done = [trial for trial in search.trials if trial.status == "finished"]
    best = max(done, key=lambda trial: (trial.metrics["val/accuracy"], -trial.number))
    return curves[best.number][1][-1], search.epochs_trained


def main(seeds: str = "10", processes: str = "2") -> None:
    """Test accuracy of the configuration that has the best validation accuracy: all in full, and by ASHA."""
    full, asha, epochs = [], [], []
    with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(int(processes)) as pool:
        packed("digits", load_params(REPOSITORY / "params.yaml"), Path(folder))
        for seed in range(int(seeds)):
            search, _, _ = search_of(seed)
            values = [dict(search.next().values) for _ in range(CONFIGURATIONS)]
            work = [(number, seed, value, folder) for number, value in enumerate(values)]
            curves = {number: (best, tests) for number, best, tests in pool.imap_unordered(trained, work)}
            winner = max(curves, key=lambda number: (curves[number][0][-1], -number))
            full.append(curves[winner][1][-1])
            test, used = replayed(seed, curves)
            asha.append(test)
            epochs.append(used / (CONFIGURATIONS * EPOCHS))
    behind = float(np.mean(full) - np.mean(asha)) * 100
    figure(
        "asha", seeds=int(seeds), points_behind=round(behind, 3), full=spread(full, 4), asha=spread(asha, 4),
        share_of_epochs=spread(epochs),
    )  # fmt: skip
