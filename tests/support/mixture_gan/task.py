"""A GAN on Gaussians around a circle: two networks, two optimizers, a penalty on gradients, generated evaluation.

The loss is the non-saturating one with R1 (Mescheder, Geiger and Nowozin, "Which Training Methods for GANs do
actually Converge?", ICML 2018, equation 9).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from assay.config.experiment import ExperimentConfig
from assay.data.dataset import Dataset
from assay.task import Context, Engine, Metrics
from assay.task import Task as Contract
from assay.train.engine import make_optimizer
from assay.train.randomness import Draw
from tests.support.mixture_gan.config import Config

RADIUS, SPREAD, NEAR = 2.0, 0.05, 0.4


def centres(modes: int) -> NDArray[np.float64]:
    """[modes, 2]."""
    angles = 2 * np.pi * np.arange(modes) / modes
    return RADIUS * np.stack([np.cos(angles), np.sin(angles)], 1)


class Points:
    """Real points [B, 2] and latents [B, latent], each a function of its index (and, in training, of the epoch)."""

    in_memory = True

    def __init__(self, config: Config, split: str) -> None:
        self.config = config
        self.split = split

    def __len__(self) -> int:
        return self.config.samples

    def load(self, indices: NDArray[np.int64], draw: Draw | None) -> dict[str, Tensor]:
        fixed = Draw({"train": 1, "val": 2, "test": 3}[self.split], 0, indices)
        real = centres(self.config.modes)[indices % self.config.modes] + SPREAD * fixed.normal("point", 2)
        latent = (draw or fixed).normal("latent", self.config.latent)
        return {"real": torch.from_numpy(real).float(), "latent": torch.from_numpy(latent).float()}


def source(config: Config, dataset: Dataset, split: str) -> Points:
    return Points(config, split)


def mlp(into: int, width: int, out: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(into, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2), nn.Linear(width, out)
    )


class Task(Contract):
    def __init__(self, config: Config, experiment: ExperimentConfig, context: Context) -> None:
        self.config = config
        self.generator = mlp(config.latent, config.width, 2).to(context.device)
        self.discriminator = mlp(2, config.width, 1).to(context.device)
        self.modules = {"generator": self.generator, "discriminator": self.discriminator}
        self.wrapped = {name: context.wrap(module) for name, module in self.modules.items()}
        rate = experiment.optimizer.lr
        self.optimizers = {
            "generator": make_optimizer(self.generator.parameters(), experiment.optimizer),
            "discriminator": make_optimizer(self.discriminator.parameters(), experiment.optimizer, 2 * rate),
        }

    @classmethod
    def build(cls, config: ExperimentConfig, dataset: Dataset, context: Context) -> Task:
        assert isinstance(config.task, Config)
        return cls(config.task, config, context)

    def train_step(self, batch: Mapping[str, Tensor], engine: Engine) -> Mapping[str, Tensor]:
        real = batch["real"].requires_grad_(True)
        with torch.no_grad():
            fake = self.generator(batch["latent"])
        scores = self.wrapped["discriminator"](torch.cat([real, fake]))
        on_real, on_fake = scores.chunk(2)
        (slope,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
        penalty = slope.square().sum(1).mean()
        loss = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
        engine.backward(loss + self.config.penalty * penalty)
        engine.step(self.optimizers["discriminator"])

        self.discriminator.requires_grad_(False)
        fooling = F.softplus(-self.discriminator(self.wrapped["generator"](batch["latent"]))).mean()
        engine.backward(fooling)
        engine.step(self.optimizers["generator"])
        self.discriminator.requires_grad_(True)
        return {"discriminator_loss": loss, "generator_loss": fooling, "penalty": penalty}

    def eval_step(self, batch: Mapping[str, Tensor], metrics: Metrics) -> None:
        points = self.generator(batch["latent"])
        distance, mode = torch.cdist(points, torch.from_numpy(centres(self.config.modes)).to(points)).min(1)
        near = distance < NEAR
        metrics.add("near", near.sum(), len(points))
        metrics.add_counts("modes", torch.bincount(mode[near], minlength=self.config.modes))

    def summarize(self, tables: Mapping[str, Tensor]) -> Mapping[str, float]:
        """The share of modes that get at least a quarter of their due."""
        found = tables["modes"] >= self.config.samples / self.config.modes / 4
        return {"coverage": found.double().mean().item()}
