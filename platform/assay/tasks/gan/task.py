"""GAN: a generator of images, learnt against a discriminator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from assay.config.experiment import ExperimentConfig
from assay.data.dataset import Dataset
from assay.task import Context, Engine, Metrics, Picture, Source
from assay.task import Task as Contract
from assay.tasks.gan import checks
from assay.tasks.gan.augment import augmented
from assay.tasks.gan.config import Config
from assay.tasks.gan.data import FIXED, Images, latents
from assay.tasks.gan.features import JUDGED, SPACES, Judge
from assay.tasks.gan.losses import judged_fake, judged_real, relativistic, slopes
from assay.tasks.gan.metrics import diversity, frechet, neighbourhood
from assay.tasks.gan.model import Discriminator, Generator, as_bytes
from assay.tasks.gan.pictures import sheet
from assay.train.engine import make_optimizer

COLLAPSED = 0.3  # of the diversity of real images
PRESENT = 0.25  # of a class's due
COLUMNS, BESIDE, MOST_ROWS = 8, 4, 20  # of a sheet: generated and real images, and classes
LOOKED_AT = 512  # real images that a sheet may show
FARTHEST = 5000  # images whose neighbourhoods are compared


def source(config: Config, dataset: Dataset, split: str) -> Images:
    return Images(config, dataset, split)


class Task(Contract):
    """A generator, its running average (which is what is judged and exported) and a discriminator."""

    watched: ClassVar[bool] = True

    def __init__(self, config: ExperimentConfig, dataset: Dataset, context: Context) -> None:
        task, card = config.task, dataset.card
        assert isinstance(task, Config)
        self.config, self.dataset, self.context = task, dataset, context
        self.named = card.annotation == "class"
        self.classes = list(card.classes) if task.conditional else []
        generator = Generator(task, card.channels, len(self.classes)).to(context.device)
        discriminator = Discriminator(task, card.channels, len(self.classes)).to(context.device)
        self.generator, self.discriminator = generator, discriminator
        self.average = deepcopy(generator).requires_grad_(False)
        self.modules = {"generator": generator, "discriminator": discriminator, "average": self.average}
        self.wrapped = {"generator": context.wrap(generator), "discriminator": context.wrap(discriminator)}
        chosen = config.optimizer
        self.optimizers = {
            "generator": make_optimizer(generator.parameters(), chosen),
            "discriminator": make_optimizer(discriminator.parameters(), chosen, chosen.lr * task.discriminator_lr),
        }
        self.space = SPACES[task.features]().to(context.device)
        self.warned = False

    @classmethod
    def check(cls, config: ExperimentConfig, dataset: Dataset) -> None:
        checks.check(config, dataset)

    @classmethod
    def build(cls, config: ExperimentConfig, dataset: Dataset, context: Context) -> Task:
        return cls(config, dataset, context)

    # Training

    def train_step(self, batch: Mapping[str, Tensor], engine: Engine) -> Mapping[str, Tensor]:
        paired = self.config.loss == "r3gan"
        losses = self._discriminate(batch, engine) if paired else self._discriminate_plainly(batch, engine)
        self.discriminator.requires_grad_(False)
        with engine.autocast():
            fake = self.wrapped["generator"](self.inputs(batch["second"], batch["label"]))
            on_fake = self.discriminator(self._changed(fake, batch, 1), batch["label"])
            if paired:
                with torch.no_grad():
                    on_real = self.discriminator(self._changed(batch["image"], batch, 1), batch["label"])
                fooling = relativistic(on_fake, on_real)
            else:
                fooling = judged_real(on_fake)
        engine.backward(fooling)
        engine.step(self.optimizers["generator"])
        self.discriminator.requires_grad_(True)
        self._follow(engine.progress)
        return {**losses, "generator_loss": fooling}

    def _discriminate(self, batch: Mapping[str, Tensor], engine: Engine) -> dict[str, Tensor]:
        """The discriminator's step of R3GAN: pairs of a real and a generated image, and penalties on both."""
        weight = self.config.slope_weight * self.config.penalty_end**engine.progress
        with engine.autocast():
            with torch.no_grad():
                fake = self.generator(self.inputs(batch["latent"], batch["label"]))
            images = torch.cat([batch["image"], fake.float()]).requires_grad_(weight > 0)
            changed = torch.cat([self._changed(half, batch, 0) for half in images.chunk(2)])
            scores = self.wrapped["discriminator"](changed, batch["label"].repeat(2))
            loss = total = relativistic(*scores.chunk(2))
        losses = {"discriminator_loss": loss}
        if weight:
            at_real, at_fake = slopes(scores, images).chunk(2)
            losses |= {"r1": at_real.mean(), "r2": at_fake.mean()}
            total = loss + weight / 2 * (losses["r1"] + losses["r2"])
        engine.backward(total)
        engine.step(self.optimizers["discriminator"])
        return losses

    def _discriminate_plainly(self, batch: Mapping[str, Tensor], engine: Engine) -> dict[str, Tensor]:
        """The discriminator's step of DCGAN: real and generated images in separate batches, as is usual."""
        discriminator = self.wrapped["discriminator"]
        with engine.autocast():
            on_real = judged_real(discriminator(self._changed(batch["image"], batch, 0), batch["label"]))
        engine.backward(on_real)
        with engine.autocast():
            with torch.no_grad():
                fake = self.generator(self.inputs(batch["latent"], batch["label"]))
            on_fake = judged_fake(discriminator(self._changed(fake, batch, 0), batch["label"]))
        engine.backward(on_fake)
        engine.step(self.optimizers["discriminator"])
        return {"discriminator_loss": on_real.detach() + on_fake.detach()}

    def _changed(self, images: Tensor, batch: Mapping[str, Tensor], step: int) -> Tensor:
        """What the discriminator sees: real and generated image i of a step are changed by the same numbers."""
        return augmented(images, batch["augment"][:, step], self.config.augment)

    def inputs(self, latent: Tensor, labels: Tensor) -> Tensor:
        """The generator's input: latents [B, Z], followed by the one-hot class if it is conditional: [B, Z + K]."""
        if not self.classes:
            return latent
        return torch.cat([latent, F.one_hot(labels, len(self.classes)).to(latent)], 1)

    @torch.no_grad()
    def _follow(self, progress: float) -> None:
        """Move the average towards the generator, the slower the later; running statistics are copied."""
        warmup = self.config.ema_warmup
        decay = self.config.ema * (min(1.0, progress / warmup) if warmup else 1.0)
        for average, parameter in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            average.lerp_(parameter, 1 - decay)
        for kept, buffer in zip(self.average.buffers(), self.generator.buffers(), strict=True):
            kept.copy_(buffer)

    # Evaluation

    @cached_property
    def judge(self) -> Judge:
        """Created from the real training images at the first evaluation."""
        train = Images(self.config, self.dataset, "train")
        count = len(train.packed)
        chosen = np.linspace(0, count - 1, min(count, JUDGED)).astype(np.int64)
        batch = train.load(chosen, None)
        return Judge(as_bytes(batch["image"]), batch["label"].numpy())

    def eval_step(self, batch: Mapping[str, Tensor], metrics: Metrics) -> None:
        labels = batch["label"]
        images = {
            "real": as_bytes(batch["image"]),
            "fake": as_bytes(self.average(self.inputs(batch["latent"], labels))),
        }
        for name, pixels in images.items():
            metrics.add_rows(name, torch.cat([labels[:, None].double(), self.space(pixels).double()], 1))
        if not self.named:
            return
        named = {name: torch.from_numpy(self.judge(pixels)).to(labels) for name, pixels in images.items()}
        metrics.add("judge_accuracy", (named["real"] == labels).sum(), len(labels))
        if self.classes:
            metrics.add("class_accuracy", (named["fake"] == labels).sum(), len(labels))
        classes = len(self.dataset.card.classes)
        metrics.add_counts(
            "classes", torch.stack([torch.bincount(x, minlength=classes) for x in (labels, named["fake"])])
        )

    def summarize(self, tables: Mapping[str, Tensor]) -> Mapping[str, float]:
        """Distances and shares in the space of features; `collapsed` is 1 if diversity is nearly gone."""
        real, fake = tables["real"].numpy(), tables["fake"].numpy()
        labels = [rows[:, 0].astype(np.int64) * bool(self.classes) for rows in (real, fake)]
        real, fake = real[:, 1:], fake[:, 1:]
        found = {self.config.headline.metric: frechet(real, fake)}
        found |= neighbourhood(real[:FARTHEST], fake[:FARTHEST])
        found["diversity"] = diversity(real, fake, *labels)
        found["collapsed"] = float(found["diversity"] < COLLAPSED)
        if "classes" in tables:
            due, got = tables["classes"].double()
            shown = (got >= PRESENT * due)[due > 0]
            found["classes_present"] = shown.double().mean().item()
        if found["collapsed"] and not self.warned:
            self.warned = True
            self.context.warn(
                f"the generator has collapsed: its images are {found['diversity']:.0%} as diverse as real ones. "
                "Raise task.penalty, lower optimizer.lr, or train longer"
            )
        return found

    # Pictures

    @torch.no_grad()
    def pictures(self, tables: Mapping[str, Tensor], source: Source) -> Iterable[Picture]:  # noqa: ARG002
        """Generated images from latents that never change, next to real ones; and paths between two latents."""
        self.train(False)
        rows = min(len(self.classes) or COLUMNS, MOST_ROWS)
        classes = np.arange(rows).repeat(COLUMNS)
        made = self._generate(latents(FIXED, np.arange(rows * COLUMNS), self.config.latent), classes)
        made = made.reshape(rows, COLUMNS, *made.shape[1:])
        real = self._real(source, rows)
        table = [{"row": i, "class": name} for i, name in enumerate(self.classes[:rows])]
        yield Picture("samples", sheet(np.concatenate([made, real], 1), COLUMNS), table)

        ends = latents(FIXED, np.arange(2 * rows), self.config.latent).reshape(2, rows, 1, -1)
        ways = between(ends[0], ends[1], COLUMNS + BESIDE).flatten(0, 1)
        strip = self._generate(ways, np.arange(rows).repeat(COLUMNS + BESIDE))
        yield Picture("interpolation", sheet(strip.reshape(rows, COLUMNS + BESIDE, *strip.shape[1:])), table)

    def _generate(self, latent: Tensor, classes: NDArray[np.int64]) -> NDArray[np.uint8]:
        """uint8 [N, C, S, S] of the average generator; `classes` is unused if it is not conditional."""
        device = self.context.device
        inputs = self.inputs(latent.to(device), torch.from_numpy(classes).to(device))
        made: NDArray[np.uint8] = as_bytes(self.average(inputs)).cpu().numpy()
        return made

    def _real(self, source: Source, rows: int) -> NDArray[np.uint8]:
        """uint8 [rows, 4, C, S, S] of the split's first images: each class in its row, repeated if it has fewer."""
        batch = source.load(np.arange(min(len(source), LOOKED_AT)), None)
        images, labels = as_bytes(batch["image"]).numpy(), batch["label"].numpy()
        every = np.arange(len(images))
        groups = [every[labels == row] if self.classes else every[row * BESIDE :] for row in range(rows)]
        chosen = np.stack([np.resize(group if len(group) else every, BESIDE) for group in groups])
        found: NDArray[np.uint8] = images[chosen]
        return found


def between(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """[rows, steps, Z] on the great circles from `start` [rows, 1, Z] to `end`: latents are normal, so their middle
    would be too short on a straight line.
    """
    share = torch.linspace(0, torch.pi / 2, steps)[None, :, None]
    return torch.cos(share) * start + torch.sin(share) * end
