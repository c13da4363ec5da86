"""The quality of the task `gan`: 25 Gaussians over five seeds, and digits beside a DCGAN's of the same minutes."""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path
from typing import Any, cast

import torch

from assay.config.experiment import ExperimentConfig, override
from assay.config.params import load_params
from assay.data.dataset import Dataset
from benchmarks.common import REPOSITORY, figure, spread
from benchmarks.in_process import built, context_in, learnt, packed

GRID: dict[str, Any] = {
    "task": {"name": "benchmarks.quality.grid"},
    "data": "none",
    "optimizer": {"name": "adam", "lr": 1.0e-3, "betas": [0.5, 0.99], "schedule": "cosine"},
    "train": {"epochs": 100, "batch_size": 256, "workers": 0},
}
GRID_SEEDS = range(5)
NOTHING = cast(Dataset, None)  # the points of the grid are drawn, not read

DIGITS_SEEDS = range(3)
DCGAN = [
    "task.loss=dcgan", "task.width=64", "task.ema=0", "task.augment.translation=0",
    "optimizer.lr=2e-4", "optimizer.betas=[0.5,0.999]", "optimizer.schedule=constant", "optimizer.warmup=0",
]  # fmt: skip
"""What makes the plain baseline of `digits_gan`, with the settings of its paper."""


def main() -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    grid()
    digits()


def grid() -> None:
    """Modes found of 25, the share of points within three standard deviations of one, and the seconds, by seed."""
    runs = [fresh(ExperimentConfig.model_validate({**GRID, "seed": seed}), NOTHING) for seed in GRID_SEEDS]
    modes = [int(metrics["test/modes"]) for metrics, _ in runs]
    near = [round(metrics["test/near"], 4) for metrics, _ in runs]
    figure("25 Gaussians, modes found", least=min(modes), seeds=modes)
    figure("25 Gaussians, share of points within 3 sigma of a mode", least=min(near), seeds=near)
    figure("25 Gaussians, seconds of training", **spread([seconds for _, seconds in runs], 1))


def digits() -> None:
    """`digits_gan` as shipped, and a DCGAN that trains as long: one line for each metric of the test split."""
    params = load_params(REPOSITORY / "params.yaml")
    modern = params.experiment("digits_gan")
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as folder:
        dataset = packed(modern.data, params, Path(folder))
        ours, theirs = [], []
        for seed in DIGITS_SEEDS:
            ours.append(fresh(override(modern, [f"seed={seed}"]), dataset))
            theirs.append(fresh(as_long(override(modern, [*DCGAN, f"seed={seed}"]), dataset, ours[-1][1]), dataset))
    for name in ours[0][0]:
        values = [[round(metrics[name], 3) for metrics, _ in runs] for runs in (ours, theirs)]
        means = [statistics.mean(each) for each in values]
        ratio = {"ratio": round(means[0] / means[1], 3)} if name.startswith("test/frechet") else {}
        figure(f"digits_gan and DCGAN, {name}", modern=values[0], dcgan=values[1], **ratio)
    seconds = {name: [round(s, 1) for _, s in runs] for name, runs in (("modern", ours), ("dcgan", theirs))}
    figure("digits_gan and DCGAN, seconds of training", **seconds)


def as_long(config: ExperimentConfig, dataset: Dataset, seconds: float) -> ExperimentConfig:
    """As many epochs as fill the seconds, by the pace of two."""
    _, of_two = fresh(override(config, ["train.epochs=2"]), dataset)
    return override(config, [f"train.epochs={max(1, round(2 * seconds / of_two))}"])


def fresh(config: ExperimentConfig, dataset: Dataset) -> tuple[dict[str, float], float]:
    """(test metrics, seconds of training) of a run in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as folder:
        context = context_in(Path(folder))
        found = learnt(*built(config, dataset, context), config, context, 1000)
        context.close()
    return found


if __name__ == "__main__":
    main()
