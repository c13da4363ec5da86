"""The quality of the task `gan`: the grid of 25 Gaussians over five seeds."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import cast

import torch

from assay.config import ExperimentConfig
from assay.data.dataset import Dataset
from assay.task import load_task
from assay.train.context import LocalContext
from assay.train.loop import evaluate, train
from assay.train.randomness import key
from benchmarks.common import figure

GRID = {
    "task": {"name": "benchmarks.quality.grid"},
    "data": "none",
    "optimizer": {"name": "adam", "lr": 1.0e-3, "betas": [0.0, 0.99], "schedule": "cosine"},
    "train": {"epochs": 100, "batch_size": 256},
}
GRID_SEEDS = range(5)


def main() -> None:
    grid()


def grid() -> None:
    """Modes found of 25, the share of points within three standard deviations of one, and the seconds, by seed."""
    modes, near, seconds = [], [], []
    for seed in GRID_SEEDS:
        started = time.monotonic()
        metrics = train_grid(seed)
        seconds.append(round(time.monotonic() - started, 1))
        modes.append(int(metrics["test/modes"]))
        near.append(round(metrics["test/near"], 4))
    figure("25 Gaussians, modes found by seed", least=min(modes), seeds=modes)
    figure("25 Gaussians, share of points within 3 sigma of a mode", least=min(near), seeds=near)
    figure("25 Gaussians, seconds", median=statistics.median(seconds), seeds=seconds)


def train_grid(seed: int) -> dict[str, float]:
    """The test metrics of one training through the platform's loop, in this process."""
    config = ExperimentConfig.model_validate({**GRID, "seed": seed})
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0)))))
    make, source = load_task(config.task.name)
    nothing = cast(Dataset, None)  # the points are drawn, not read
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as folder:
        context = LocalContext(Path(folder), torch.device("cpu"), torch.get_num_threads())
        torch.manual_seed(key(seed, "init"))
        task = make.build(config, nothing, context)
        splits = {name: source(config.task, nothing, name) for name in ("train", "val")}
        task.load_state_dict(train(task, splits, config, context).weights)
        metrics, _ = evaluate(task, source(config.task, nothing, "test"), "test", 1000, context)
        context.close()
    return metrics


if __name__ == "__main__":
    main()
