"""Pictures that are optimized, and a network that paints: the same photographs, style, losses and threads.

The photographs are those of the test split of `paint`. All style losses are those of 8-bit pictures of 256 x 256.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from assay.config.experiment import ExperimentConfig, replaced
from assay.config.params import load_params
from assay.data.dataset import Dataset
from assay.tasks.style_transfer.data import CONTENT, Images
from assay.train.context import LocalContext
from assay.train.engine import StepEngine
from assay.train.loop import evaluate
from benchmarks.common import REPOSITORY, figure, spread
from benchmarks.in_process import built, context_in, learnt, packed

STYLE = "style/brick"
REPEATS = 20


def main() -> None:
    params = load_params(REPOSITORY / "params.yaml")
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as folder:
        root = Path(folder)
        dataset, context = packed("paint", params, root), context_in(root)
        chosen = [("task.style", STYLE)]
        optimize = replaced(params.preset("paint", "optimize"), chosen, "benchmark:")
        optimized = [
            _optimized(replaced(optimize, [("task.content", name)], "benchmark:"), dataset, context)
            for name in Images.of(dataset, "test", CONTENT).names
        ]
        network = _network(replaced(params.preset("paint", "large"), chosen, "benchmark:"), dataset, context)
        context.close()
    ratios = [metrics["test/style_ratio"] for metrics, _ in optimized]
    seconds = [taken for _, taken in optimized]
    figure(f"paint, {STYLE}, optimized: style loss below the photograph's, times", **spread(ratios, 1))
    losses = [statistics.mean(m["test/style_loss"] for m, _ in optimized), network["test/style_loss"]]
    figure(
        f"paint, {STYLE}, network against optimizing",
        faster=round(statistics.mean(seconds) / network["seconds"], 1),
        style_loss=round(losses[1] / losses[0], 2),
        style_losses={"optimized": round(losses[0], 4), "network": round(losses[1], 4)},
        style_ratio_of_the_network=round(network["test/style_ratio"], 1),
        seconds_an_image={"optimized": spread(seconds, 1), "network": round(network["seconds"], 4)},
        seconds_of_training=round(network["training"]),
        threads=torch.get_num_threads(),
    )


def _optimized(config: ExperimentConfig, dataset: Dataset, context: LocalContext) -> tuple[dict[str, float], float]:
    """The metrics of one picture, and the seconds of its steps alone."""
    task, sources = built(config, dataset, context)
    views = sources["train"]
    steps = len(views) * config.train.epochs
    engine = StepEngine(task.optimizers, config.train, config.optimizer, context.device, steps)
    batch = views.load(np.arange(1), None)
    task.train(True)
    task.perceptual, task.references  # noqa: B018 (made before the clock starts)
    started = time.perf_counter()
    for step in range(steps):
        engine.begin(step)
        task.train_step(batch, engine)
        engine.end()
    seconds = time.perf_counter() - started
    metrics, _ = evaluate(task, sources["test"], "test", 1, context, draw=False)
    return metrics, seconds


def _network(config: ExperimentConfig, dataset: Dataset, context: LocalContext) -> dict[str, float]:
    """Test metrics of the trained network, `training` seconds, and the median `seconds` of one picture."""
    task, sources = built(config, dataset, context)
    metrics, training = learnt(task, sources, config, context, 1)
    batch = sources["test"].load(np.arange(1), None)
    taken = []
    with torch.inference_mode():
        for _ in range(REPEATS):
            started = time.perf_counter()
            task.painted(batch["content"], batch["style"])
            taken.append(time.perf_counter() - started)
    return {**metrics, "training": training, "seconds": statistics.median(taken)}
