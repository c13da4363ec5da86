"""A whole task in a few lines: a line through noisy points, with everything that a resume can get wrong.

It has dropout (a random generator), batch normalization (buffers), momentum (optimizer state) and augmentation (draws).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.config.experiment import ExperimentConfig
from assay.config.plugin import Headline, TaskConfig
from assay.task import Context, Engine, Metrics
from assay.task import Task as Contract
from assay.train.engine import make_optimizer
from assay.train.randomness import Draw, bits, key

FEATURES = 3


class Config(TaskConfig):
    name: Literal["tiny"] = "tiny"
    dropout: float = 0.1
    normalize: bool = True
    scored: str = "loss"
    maximize: bool = False

    @property
    def headline(self) -> Headline:
        return Headline(self.scored, self.maximize)


class Points:
    """Points by counter: sample i is the same in every process."""

    in_memory = True

    def __init__(self, split: str, length: int) -> None:
        counters = np.arange(length * (FEATURES + 1)).reshape(length, FEATURES + 1)
        values = (bits(key("points", split), counters) >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1
        self.x = torch.from_numpy(values[:, :FEATURES]).float()
        self.y = self.x @ torch.tensor([1.0, -2.0, 0.5]) + 0.1 * torch.from_numpy(values[:, FEATURES]).float()

    def __len__(self) -> int:
        return len(self.y)

    def load(self, indices: np.ndarray[Any, Any], draw: Draw | None) -> dict[str, Tensor]:
        rows = torch.from_numpy(indices)
        x = self.x[rows]
        if draw is not None:
            x = x + 0.05 * torch.from_numpy(draw.normal("jitter", FEATURES)).float()
        return {"x": x, "y": self.y[rows]}


def source(config: Config, dataset: Any, split: str) -> Points:
    return Points(split, {"train": 26, "val": 10, "test": 10}[split])


class Task(Contract):
    """`before` is called before each training step, with how many this task has done; tests break in there."""

    def __init__(self, network: nn.Module, wrapped: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.network = network
        self.wrapped = wrapped
        self.modules = {"network": network}
        self.optimizers = {"network": optimizer}
        self.before: Callable[[int], None] = lambda step: None
        self.spoil = 1.0
        self.done = 0

    @classmethod
    def build(cls, config: ExperimentConfig, dataset: Any, context: Context) -> Task:
        task = config.task
        assert isinstance(task, Config)
        norm = nn.BatchNorm1d(8) if task.normalize else nn.Identity()
        network = nn.Sequential(nn.Linear(FEATURES, 8), norm, nn.ReLU(), nn.Dropout(task.dropout), nn.Linear(8, 1))
        network.to(context.device)
        return cls(network, context.wrap(network), make_optimizer(network.parameters(), config.optimizer))

    def train_step(self, batch: Mapping[str, Tensor], engine: Engine) -> Mapping[str, Tensor]:
        self.before(self.done)
        self.done += 1
        with engine.autocast():
            loss = F.mse_loss(self.wrapped(batch["x"])[:, 0], batch["y"]) * self.spoil
        engine.optimize(loss)
        return {"loss": loss, "doubled": 2 * loss}

    def eval_step(self, batch: Mapping[str, Tensor], metrics: Metrics) -> None:
        error = self.network(batch["x"])[:, 0] - batch["y"]
        metrics.add("loss", (error**2).sum(), len(error))
        metrics.add_counts("signs", torch.stack([(error > 0).sum(), (error <= 0).sum()]))

    def summarize(self, tables: Mapping[str, Tensor]) -> Mapping[str, float]:
        return {"above": (tables["signs"][0] / tables["signs"].sum()).item()}
