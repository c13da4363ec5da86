"""Every experiment of params.yaml in small: a few samples, a few steps, the same in any number of workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.overrides import TorchFunctionMode

from assay.config.experiment import ExperimentConfig
from assay.config.params import load_params
from assay.config.plugin import load_task
from assay.data.dataset import Dataset, read_card
from assay.task import Batch, Source, Task
from assay.train.context import LocalContext
from assay.train.engine import StepEngine
from assay.train.loader import Loader
from assay.train.loop import evaluate, seed_step, to_device
from assay.train.metrics import Window
from assay.train.randomness import Draw, key

REPOSITORY = Path(__file__).parents[2]
PARAMS = load_params(REPOSITORY / "params.yaml")
MIXTURE = ExperimentConfig.model_validate({"task": {"name": "tests.support.mixture_gan"}, "data": "digits"})
EXPERIMENTS = {**PARAMS.experiments, "mixture (test only)": MIXTURE}
SAMPLES = 48


def one_of_each_task(names: Iterable[str]) -> list[Any]:
    """Parameters of a test for each experiment: one of each task, and the others in the thorough tests."""
    seen: set[str] = set()
    found = []
    for name in names:
        task = EXPERIMENTS[name].task.name
        found.append(pytest.param(name, marks=[pytest.mark.thorough] if task in seen else []))
        seen.add(task)
    return found


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


def small(name: str, batch: int = 8) -> ExperimentConfig:
    """An experiment with two epochs of small batches, in this process."""
    config = EXPERIMENTS[name]
    train: dict[str, Any] = {"epochs": 2, "batch_size": min(batch, config.train.batch_size), "checkpoint_seconds": 0}
    train |= {"workers": 0, "precision": "fp32"}
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


class Double(TorchFunctionMode):
    """Computes in double precision: whatever code asks for single precision gets double.

    Rounding grows with each step of a training, by a hundred in six steps of the detector: in single precision it soon
    hides whether two workers compute the same. In double precision a wrong normalization stands out.
    """

    def __enter__(self) -> Self:
        torch.set_default_dtype(torch.float64)
        return super().__enter__()  # type: ignore[no-any-return,no-untyped-call]

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        torch.set_default_dtype(torch.float32)

    def __torch_function__(self, function: Any, types: Any, values: Any = (), named: Any = None) -> Any:
        named = named or {}
        if function is torch.Tensor.float:
            function = torch.Tensor.double
        elif function is not torch.empty:  # the storage of a tensor that is read from a file of weights
            values, named = map(_doubled, values), {name: _doubled(value) for name, value in named.items()}
        return function(*values, **named)


def _doubled(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


def _widened(batch: Any) -> Any:
    """The batch with all its fractions in double precision."""
    if isinstance(batch, Mapping):
        return {name: _widened(value) for name, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(map(_widened, batch))
    return batch.double() if isinstance(batch, torch.Tensor) and batch.is_floating_point() else batch


def evaluated(config: ExperimentConfig, dataset: Dataset, context: LocalContext, count: int) -> Mapping[str, float]:
    """The metrics of an untrained network over the first `count` samples of the validation split."""
    source = sources(config, dataset, count)["val"]
    return evaluate(build(config, dataset, context), source, "val", config.train.batch_size, context, draw=False)[0]


def losses(config: ExperimentConfig, dataset: Dataset, context: LocalContext, steps: int) -> list[Mapping[str, float]]:
    """What the first steps report, over all workers, in double precision. Dropout, each worker's own noise, is off."""
    with Double():
        task = build(config, dataset, context)
    for module in task.modules.values():
        assert not any(parameter.dtype == torch.float32 for parameter in module.parameters())
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
        with Double():
            window.add(task.train_step(_widened(to_device(batch, context.device)), engine))
        engine.end()
        found.append(window.take(context))
    return found
