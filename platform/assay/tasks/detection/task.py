"""Detection: the boxes of things in an image, each with its class and a score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from assay.config.experiment import ExperimentConfig
from assay.data.dataset import Dataset
from assay.task import Context, Engine, Metrics, Picture, Source
from assay.task import Task as Contract
from assay.tasks.detection import checks, pictures
from assay.tasks.detection.config import Config
from assay.tasks.detection.data import Scenes
from assay.tasks.detection.letterbox import restore
from assay.tasks.detection.metrics import Scores, coco_scores
from assay.tasks.detection.model import Detector, make_detector
from assay.train.engine import make_optimizer


def source(config: Config, dataset: Dataset, split: str) -> Scenes:
    return Scenes(config, dataset, split)


class Task(Contract):
    """A detector, its optimizer, the mean of its weights over time, and the names of its classes."""

    def __init__(self, config: ExperimentConfig, dataset: Dataset, context: Context) -> None:
        assert isinstance(config.task, Config)
        self.config, self.context = config.task, context
        self.classes, self.channels = list(dataset.card.classes), dataset.card.channels
        detector, origin = make_detector(self.config, dataset.card, context.pretrained)
        self.detector = detector.to(context.device)
        ema = self.config.ema
        self.average = AveragedModel(self.detector, multi_avg_fn=_moving(ema)) if ema else None
        self.modules = {"detector": self.detector, **({} if self.average is None else {"average": self.average})}
        self.optimizers = {"detector": make_optimizer(_groups(self.detector, config), config.optimizer)}
        self.wrapped = context.wrap(self.detector)
        self.notes = {"pretrained_weights": origin}

    @classmethod
    def check(cls, config: ExperimentConfig, dataset: Dataset) -> None:
        checks.check(config, dataset)

    @classmethod
    def build(cls, config: ExperimentConfig, dataset: Dataset, context: Context) -> Task:
        return cls(config, dataset, context)

    def train_step(self, batch: Mapping[str, Tensor], engine: Engine) -> Mapping[str, Tensor]:
        with engine.autocast():
            losses = self.detector.losses(self.wrapped, batch, self._over_workers)
        engine.backward(losses["loss"])
        if engine.step(self.optimizers["detector"]) and self.average is not None:
            self.average.update_parameters(self.detector)
        return losses

    def _over_workers(self, number: Tensor) -> Tensor:
        return self.context.all_reduce(number) / self.context.world_size

    @property
    def best(self) -> Detector:
        """What is evaluated and served."""
        detector: Detector = self.detector if self.average is None else self.average.module  # type: ignore[assignment]
        return detector

    def eval_step(self, batch: Mapping[str, Tensor], metrics: Metrics) -> None:
        found = restore(self.best.detect(batch["image"]), batch["scale"], batch["extent"])
        metrics.add_rows("detections", _rows(batch["index"], found, found[..., 4] > 0))
        truth = torch.cat([batch["truth"], torch.stack([batch["labels"], batch["ignored"]], 2)], 2)
        metrics.add_rows("truth", _rows(batch["index"], truth, batch["labels"] >= 0))

    def summarize(self, tables: Mapping[str, Tensor]) -> Mapping[str, float]:
        return self._scores(tables).metrics

    def _scores(self, tables: Mapping[str, Tensor]) -> Scores:
        return coco_scores(tables["truth"].numpy(), tables["detections"].numpy(), self.classes)

    def pictures(self, tables: Mapping[str, Tensor], source: Source) -> Iterable[Picture]:
        truth, detections = tables["truth"].numpy(), tables["detections"].numpy()
        shown = pictures.scenes(source, truth, detections, self.classes, self.config.threshold)
        return [*([shown] if shown else []), pictures.precision_recall(self._scores(tables))]


def _rows(index: Tensor, values: Tensor, there: Tensor) -> Tensor:
    """float64 [n, 1 + V] of values [B, M, V]: the number of the sample before what is `there`, bool [B, M]."""
    numbers = index[:, None, None].expand(-1, values.shape[1], 1)
    return torch.cat([numbers.double(), values.double()], 2)[there]


def _groups(detector: Detector, config: ExperimentConfig) -> list[dict[str, Any]]:
    """The backbone at its own rate; normalization and biases without weight decay. A rate of 0 freezes."""
    assert isinstance(config.task, Config)
    rates = {True: config.optimizer.lr * config.task.backbone_lr, False: config.optimizer.lr}
    if not config.task.backbone_lr:
        detector.backbone.requires_grad_(False)
    inside = {id(parameter) for parameter in detector.backbone.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in detector.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in inside, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": parameters, "lr": rates[backbone]} | ({} if decays else {"weight_decay": 0.0})
        for (backbone, decays), parameters in groups.items()
    ]


def _moving(decay: float) -> Any:
    """An exponential moving average that forgets the start: step n keeps at most (1 + n) / (10 + n)."""

    @torch.no_grad()
    def update(average: list[Tensor], current: list[Tensor], steps: Tensor) -> None:
        keep = min(decay, (1 + int(steps)) / (10 + int(steps)))
        torch._foreach_lerp_(average, current, 1 - keep)

    return update
