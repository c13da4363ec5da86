"""Every experiment of params.yaml in small: a few samples, a few steps, the same in any number of workers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from assay.config import ExperimentConfig, load_params
from assay.data.dataset import Dataset, read_card
from assay.task import Batch, Source, Task, load_task
from assay.train.context import LocalContext
from assay.train.engine import StepEngine
from assay.train.loader import Loader
from assay.train.loop import seed_step, to_device
from assay.train.metrics import Window
from assay.train.randomness import Draw, key

REPOSITORY = Path(__file__).parents[2]
PARAMS = load_params(REPOSITORY / "params.yaml")
MIXTURE = ExperimentConfig.model_validate({"task": {"name": "tests.support.mixture_gan"}, "data": "digits"})
EXPERIMENTS = {**PARAMS.experiments, "mixture (test only)": MIXTURE}
SAMPLES = 48
BATCH = 8


class Few:
    """The first samples of a split."""

    def __init__(self, source: Source, count: int) -> None:
        self.source = source
        self.count = min(count, len(source))
        self.in_memory = True  # loads in this thread

    def __len__(self) -> int:
        return self.count

    def load(self, indices: NDArray[np.int64], draw: Draw | None) -> Batch:
        return self.source.load(indices, draw)


def small(name: str, epochs: int = 2) -> ExperimentConfig:
    """An experiment with small batches, in this process."""
    config = EXPERIMENTS[name]
    train = {"epochs": epochs, "batch_size": min(BATCH, config.train.batch_size), "workers": 0, "checkpoint_seconds": 0}
    return config.model_copy(update={"train": config.train.model_copy(update=train)})


def opened(config: ExperimentConfig, root: Path) -> Dataset:
    folder = root / config.data
    return Dataset(folder, read_card(folder, config.data), "0" * 32)


def sources(config: ExperimentConfig, dataset: Dataset, count: int = SAMPLES) -> dict[str, Few]:
    source = load_task(config.task.name)[1]
    return {split: Few(source(config.task, dataset, split), count) for split in ("train", "val")}


def build(config: ExperimentConfig, dataset: Dataset, context: LocalContext) -> Task:
    torch.manual_seed(key(config.seed, "init"))
    return load_task(config.task.name)[0].build(config, dataset, context)


def losses(config: ExperimentConfig, dataset: Dataset, context: LocalContext, steps: int) -> list[Mapping[str, float]]:
    """What the first steps report, over all workers. Dropout, whose noise is each worker's own, is off.

    The learning rate is a tenth: Adam turns the rounding of gradients near zero into whole steps of that size.
    """
    slower = config.optimizer.model_copy(update={"lr": config.optimizer.lr / 10})
    config = config.model_copy(update={"optimizer": slower})
    task = build(config, dataset, context)
    for module in task.modules.values():
        for layer in module.modules():
            if isinstance(layer, nn.modules.dropout._DropoutNd):
                layer.p = 0.0
    source = sources(config, dataset)["train"]
    loader = Loader(source, config.train.batch_size, config.seed, context.rank, context.world_size)
    engine = StepEngine(task.optimizers, config.train, config.optimizer, context.device, steps)
    window, found = Window(context.device), []
    task.train(True)
    for step in range(steps):
        batch: Any = next(loader.epoch(step // loader.steps, step % loader.steps))
        seed_step(config.seed, step, context)
        engine.begin(step)
        window.add(task.train_step(to_device(batch, context.device), engine))
        engine.end()
        found.append(window.take(context))
    return found
