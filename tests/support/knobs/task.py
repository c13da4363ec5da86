"""See `config`. The samples are eight numbers; the network is one layer, so that weights are real and small."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from assay.config.experiment import ExperimentConfig
from assay.task import Context, Engine, Metrics
from assay.task import Task as Contract
from assay.train.engine import make_optimizer
from assay.train.randomness import Draw
from tests.support.knobs.config import Config


class Eight:
    in_memory = True

    def __len__(self) -> int:
        return 8

    def load(self, indices: np.ndarray[Any, Any], draw: Draw | None) -> Tensor:
        return torch.from_numpy(indices).float()[:, None] / 8


def source(config: Config, dataset: Any, split: str) -> Eight:
    return Eight()


class Task(Contract):
    def __init__(self, config: ExperimentConfig, context: Context) -> None:
        assert isinstance(config.task, Config)
        self.config = config.task
        self.network = nn.Sequential(nn.Linear(1, config.task.width), nn.Linear(config.task.width, 1))
        self.epoch = nn.Parameter(torch.zeros(()), requires_grad=False)  # saved, so a resumed run counts on
        self.network.register_parameter("epoch", self.epoch)
        self.modules = {"network": self.network}
        self.wrapped = context.wrap(self.network)
        self.optimizers = {"network": make_optimizer(self.network.parameters(), config.optimizer)}

    @classmethod
    def build(cls, config: ExperimentConfig, dataset: Any, context: Context) -> Task:
        return cls(config, context)

    def train_step(self, batch: Tensor, engine: Engine) -> Mapping[str, Tensor]:
        time.sleep(self.config.nap)
        if self.config.x > self.config.from_x:
            self._suffer(engine.progress)
        loss = (self.wrapped(batch) - batch).square().mean()
        engine.optimize(loss)
        self.epoch.data += 1
        return {"loss": loss}

    def _suffer(self, progress: float) -> None:
        fate = self.config.fate
        if fate == "raise":
            raise RuntimeError("this trial was made to fail")
        if fate == "memory":
            raise MemoryError("not enough of it")
        if fate == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if fate == "nan":
            with torch.no_grad():
                self.network[0].weight.fill_(float("nan"))

    def eval_step(self, batch: Tensor, metrics: Metrics) -> None:
        c = self.config
        best = 1 - (c.x - 0.7) ** 2 - (c.y - 0.3) ** 2 + (0.1 * c.tuning if c.kind == "tuned" else 0)
        if c.fate != "mute":
            metrics.add("effort", torch.tensor(c.x + c.y), 1)
        metrics.add("score", torch.tensor(best - 0.5 / (1 + float(self.epoch))), 1)
