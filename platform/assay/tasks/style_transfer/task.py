"""Style transfer: the content of a photograph in the style of another picture, learnt from a frozen network's eyes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from assay.config.experiment import ExperimentConfig
from assay.data.dataset import Dataset
from assay.task import Context, Engine, Metrics, Picture, Source
from assay.task import Task as Contract
from assay.tasks.style_transfer import checks
from assay.tasks.style_transfer.config import Config
from assay.tasks.style_transfer.data import (
    CONTENT,
    Crops,
    Images,
    Pairs,
    Views,
    chosen_content,
    chosen_styles,
    whole_pictures,
)
from assay.tasks.style_transfer.losses import Losses, PerceptualLoss, rolled
from assay.tasks.style_transfer.model import Canvas, Painter
from assay.tasks.style_transfer.pictures import triptychs
from assay.train.engine import make_optimizer

SHOWN = 8  # triptychs in a picture, at most


def source(config: Config, dataset: Dataset, split: str) -> Crops | Pairs | Views:
    """The samples of a split. Optimization learns and is judged on its own pictures, whatever the split."""
    if split == "train":
        return Views(config.steps) if config.method == "optimize" else Crops(config, dataset)
    styles = len(chosen_styles(config, dataset))
    if config.method == "optimize":
        return Pairs(chosen_content(config, dataset)[1], styles)
    return Pairs(whole_pictures(Images.of(dataset, split, CONTENT), config.image_size), styles)


class Task(Contract):
    """What paints (a network, or the pictures themselves), its optimizer, and the losses of the result."""

    watched: ClassVar[bool] = True

    def __init__(self, config: ExperimentConfig, dataset: Dataset, context: Context) -> None:
        assert isinstance(config.task, Config)
        self.config = config.task
        self.dataset = dataset
        self.device = context.device
        self.style_images = chosen_styles(self.config, dataset)
        self.styles = self.style_images.names
        self.whole_steps = config.optimizer.name == "lbfgs"

    @classmethod
    def check(cls, config: ExperimentConfig, dataset: Dataset) -> None:
        checks.check(config, dataset)

    @classmethod
    def build(cls, config: ExperimentConfig, dataset: Dataset, context: Context) -> Task:
        assert isinstance(config.task, Config)
        kind = Optimized if config.task.method == "optimize" else Painted
        task = kind(config, dataset, context)
        if context.pretrained:
            task.notes = {"perceptual_weights": task.perceptual.origin, "styles": ", ".join(task.styles)}
        return task

    @cached_property
    def perceptual(self) -> PerceptualLoss:
        """Created at its first use: serving needs none."""
        return PerceptualLoss(self.config, whole_pictures(self.style_images, self.config.image_size), self.device)

    @abstractmethod
    def painted(self, content: Tensor, style: Tensor) -> Tensor:
        """The results for contents uint8 [B, 3, S, S] in styles int64 [B], in 0..1."""

    def eval_step(self, batch: Mapping[str, Tensor], metrics: Metrics) -> None:
        content, style = batch["content"] / 255, batch["style"]
        results = as_saved(self.painted(batch["content"], style))
        reference = self.perceptual.features(content)
        losses = self.perceptual.losses(results, reference, style)
        for name, values in named(losses).items():
            metrics.add(name, values.sum(), len(values))
        untouched = self.perceptual.style_loss(reference, style)
        metrics.add_rows("style", torch.stack([untouched, losses.style], 1))

    def summarize(self, tables: Mapping[str, Tensor]) -> Mapping[str, float]:
        """How many times nearer to its style the result is than the untouched content."""
        untouched, painted = tables["style"].double().mean(0).tolist()
        return {"style_ratio": untouched / max(painted, 1e-12)}

    def pictures(self, tables: Mapping[str, Tensor], source: Source) -> Iterable[Picture]:  # noqa: ARG002
        batch = source.load(np.arange(min(SHOWN, len(source))), None)
        with torch.no_grad():
            results = self.painted(batch["content"].to(self.device), batch["style"].to(self.device))
        styles = whole_pictures(self.style_images, self.config.image_size)[batch["style"]]
        names = [self.styles[number] for number in batch["style"].tolist()]
        return [triptychs(batch["content"], styles, pixels(results).cpu(), names)]


class Painted(Task):
    """A network learns to paint any photograph in each style (Johnson, Alahi and Fei-Fei, ECCV 2016)."""

    def __init__(self, config: ExperimentConfig, dataset: Dataset, context: Context) -> None:
        super().__init__(config, dataset, context)
        self.painter = Painter(self.config, len(self.styles)).to(context.device)
        self.wrapped = context.wrap(self.painter)
        self.modules = {"painter": self.painter}
        self.optimizers = {"painter": make_optimizer(self.painter.parameters(), config.optimizer)}

    def painted(self, content: Tensor, style: Tensor) -> Tensor:
        results: Tensor = self.painter(content / 255, style)
        return results.clamp(0, 1)

    def train_step(self, batch: Mapping[str, Tensor], engine: Engine) -> Mapping[str, Tensor]:
        content, style, shift = batch["content"] / 255, batch["style"], batch["shift"]
        with engine.autocast():
            with torch.no_grad():
                reference = self.perceptual.features(rolled(content, shift))
            results = rolled(self.wrapped(content, style), shift)
            losses = self.perceptual.losses(results, reference, style)
        engine.optimize(losses.total.mean())
        return {name: values.mean() for name, values in named(losses).items()}


class Optimized(Task):
    """The pictures themselves are learnt: one photograph in each chosen style (Gatys, Ecker and Bethge, CVPR 2016)."""

    def __init__(self, config: ExperimentConfig, dataset: Dataset, context: Context) -> None:
        super().__init__(config, dataset, context)
        name, content = chosen_content(self.config, dataset)
        self.content = content.to(context.device)
        shape = (len(self.styles), *content.shape[1:])
        start = content.expand(shape) / 255 if self.config.start == "content" else torch.rand(shape)
        self.canvas = Canvas(start.contiguous()).to(context.device)
        self.modules = {"canvas": self.canvas}
        self.optimizers = {"canvas": make_optimizer(self.canvas.parameters(), config.optimizer)}
        self.numbers = torch.arange(len(self.styles), device=context.device)
        self.notes = {"content": name}

    def painted(self, content: Tensor, style: Tensor) -> Tensor:  # noqa: ARG002
        results: Tensor = self.canvas()[style].clamp(0, 1)
        return results

    def train_step(self, batch: Mapping[str, Tensor], engine: Engine) -> Mapping[str, Tensor]:
        """One step of a gradient method on a shifted view, or one of L-BFGS, which needs the same loss at each step."""
        (optimizer,) = self.optimizers.values()
        shift = torch.zeros_like(batch["shift"][0]) if self.whole_steps else batch["shift"][0]
        reference = self.references[tuple(shift.tolist())]
        seen: list[Losses] = []

        def closure() -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            with engine.autocast():
                results = torch.roll(self.canvas(), tuple(shift.tolist()), (2, 3))
                losses = self.perceptual.losses(results, reference, self.numbers)
            loss = losses.total.mean()
            engine.backward(loss)
            seen.append(losses)
            return loss

        if self.whole_steps:
            engine.step(optimizer, closure)
        else:
            closure()
            engine.step(optimizer)
        return {name: values.mean() for name, values in named(seen[0]).items()}

    @cached_property
    def references(self) -> Mapping[tuple[int, ...], Mapping[str, Tensor]]:
        """The content's activations, by the shift of the view."""
        layers = self.config.perceptual.content_layers
        found: dict[tuple[int, ...], Mapping[str, Tensor]] = {}
        with torch.no_grad():
            for shift in ((0, 0), (0, 1), (1, 0), (1, 1)):
                features = self.perceptual.features(torch.roll(self.content / 255, shift, (2, 3)))
                found[shift] = {layer: features[layer] for layer in layers}
        return found


def named(losses: Losses) -> dict[str, Tensor]:
    """What is recorded, each [B]."""
    return {
        "style_loss": losses.style,
        "content_loss": losses.content,
        "variation": losses.variation,
        "total_loss": losses.total,
    }


def pixels(pictures: Tensor) -> Tensor:
    """0..1 to uint8."""
    return pictures.mul(255).round().clamp(0, 255).to(torch.uint8)


def as_saved(pictures: Tensor) -> Tensor:
    """0..1 in the 256 steps that a file can hold."""
    return pixels(pictures) / 255
