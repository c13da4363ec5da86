"""A GAN on 25 Gaussians in a 5x5 grid: does the loss of the task `gan` find every mode, and keep to them?"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from assay.config.experiment import ExperimentConfig
from assay.data.dataset import Dataset
from assay.task import Context, Engine, Metrics
from assay.task import Task as Contract
from assay.tasks.gan.losses import relativistic, slopes
from assay.train.engine import make_optimizer
from assay.train.randomness import Draw
from benchmarks.quality.grid.config import Config

SPACING, SIGMA, NEAR = 2.0, 0.05, 3.0
EXTENT = SPACING * 2**0.5  # the standard deviation of a coordinate over the grid
SLOPE = 0.2  # of leaky units
WARMUP = 0.1  # of the training, over which the average slows down


def centres() -> NDArray[np.float64]:
    """[25, 2]."""
    line = SPACING * (np.arange(5) - 2)
    return np.stack(np.meshgrid(line, line), -1).reshape(25, 2)


class Points:
    """Real points [B, 2] and latents [B, latent], each a function of its index (and, in training, of the epoch)."""

    in_memory = True

    def __init__(self, config: Config, split: str) -> None:
        self.config = config
        self.split = split

    def __len__(self) -> int:
        return self.config.samples if self.split == "train" else self.config.judged

    def load(self, indices: NDArray[np.int64], draw: Draw | None) -> dict[str, Tensor]:
        drawn = draw or Draw({"train": 1, "val": 2, "test": 3}[self.split], 0, indices)
        real = centres()[indices % 25] + SIGMA * drawn.normal("point", 2)
        found = {"real": real, **{name: drawn.normal(name, self.config.latent) for name in ("latent", "second")}}
        return {name: torch.from_numpy(values).float() for name, values in found.items()}


def source(config: Config, dataset: Dataset, split: str) -> Points:
    return Points(config, split)


class Scaled(nn.Module):
    """Points [B, 2] as the discriminator sees them: at unit size, and as waves of rising frequency.

    Tancik et al., "Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains", NeurIPS
    2020, with octaves of one radian a unit: none of them is the period of the grid.
    """

    octaves: Tensor

    def __init__(self, frequencies: int) -> None:
        super().__init__()
        self.register_buffer("octaves", 2.0 ** torch.arange(frequencies))

    def forward(self, points: Tensor) -> Tensor:
        waves = (points[:, :, None] * self.octaves).flatten(1)
        return torch.cat([points / EXTENT, waves.sin(), waves.cos()], 1)


def mlp(into: int, width: int, depth: int, out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(depth):
        layers += [nn.Linear(width if number else into, width), nn.LeakyReLU(SLOPE)]
    network = nn.Sequential(*layers, nn.Linear(width, out))
    for layer in network[::2]:
        nn.init.kaiming_normal_(layer.weight, a=SLOPE)
        nn.init.zeros_(layer.bias)
    return network


class Generator(nn.Module):
    """Latents [B, Z] to points [B, 2]. Some are signs: a continuous map of normal numbers alone must fill the gaps
    between the modes (Brock, Donahue and Simonyan, "Large Scale GAN Training", ICLR 2019, appendix E).
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.signs = config.latent // 2
        self.network = mlp(config.latent, config.width, config.depth, 2)

    def forward(self, latent: Tensor) -> Tensor:
        inputs = torch.cat([latent[:, : self.signs].sign(), latent[:, self.signs :]], 1)
        points: Tensor = EXTENT * self.network(inputs)
        return points


class Task(Contract):
    """Two small networks, and the running average of the generator that is judged."""

    def __init__(self, experiment: ExperimentConfig, context: Context) -> None:
        config = experiment.task
        assert isinstance(config, Config)
        self.config = config
        self.generator = Generator(config).to(context.device)
        scores = mlp(2 + 4 * config.frequencies, config.width, config.depth, 1)
        self.discriminator = nn.Sequential(Scaled(config.frequencies), scores).to(context.device)
        self.average = deepcopy(self.generator).requires_grad_(False)
        self.modules = {"generator": self.generator, "discriminator": self.discriminator, "average": self.average}
        self.wrapped = {name: context.wrap(self.modules[name]) for name in ("generator", "discriminator")}
        self.optimizers = {
            name: make_optimizer(self.modules[name].parameters(), experiment.optimizer) for name in self.wrapped
        }

    @classmethod
    def build(cls, config: ExperimentConfig, dataset: Dataset, context: Context) -> Task:
        return cls(config, context)

    def train_step(self, batch: Mapping[str, Tensor], engine: Engine) -> Mapping[str, Tensor]:
        with torch.no_grad():
            fake = self.generator(batch["latent"])
        points = torch.cat([batch["real"], fake]).requires_grad_()
        scores = self.wrapped["discriminator"](points)[:, 0]
        loss = relativistic(*scores.chunk(2))
        penalty = 2 * slopes(scores, points).mean()  # the sum of the means over real and over generated points
        weight = self.config.penalty * self.config.penalty_end**engine.progress
        engine.backward(loss + weight / 2 * penalty)
        engine.step(self.optimizers["discriminator"])

        self.discriminator.requires_grad_(False)
        with torch.no_grad():
            on_real = self.discriminator(batch["real"])[:, 0]
        fooling = relativistic(self.discriminator(self.wrapped["generator"](batch["second"]))[:, 0], on_real)
        engine.backward(fooling)
        engine.step(self.optimizers["generator"])
        self.discriminator.requires_grad_(True)
        decay = self.config.ema * min(1.0, engine.progress / WARMUP)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.generator.parameters()), 1 - decay)
        return {"discriminator_loss": loss, "generator_loss": fooling, "penalty": penalty}

    def eval_step(self, batch: Mapping[str, Tensor], metrics: Metrics) -> None:
        points = self.average(batch["latent"])
        distance, mode = torch.cdist(points, torch.from_numpy(centres()).to(points)).min(1)
        near = distance < NEAR * SIGMA
        metrics.add("near", near.sum(), len(points))
        metrics.add_counts("modes", torch.bincount(mode[near], minlength=25))

    def summarize(self, tables: Mapping[str, Tensor]) -> Mapping[str, float]:
        """`modes`: how many get at least a quarter of their due within three standard deviations."""
        counts = tables["modes"]
        return {"modes": float((counts >= self.config.judged / 25 / 4).sum()), "fewest": float(counts.min())}
