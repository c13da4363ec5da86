"""Detection: the boxes of things in an image, each with its class and a score."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from assay.config.experiment import ExperimentConfig
from assay.data.dataset import Dataset
from assay.data.images import Rejected, decode
from assay.errors import InputError
from assay.networks.shape import CONVNET
from assay.task import Answer, Context, Engine, Export, Metrics, Picture
from assay.task import Task as Contract
from assay.tasks.detection.compact import Compact
from assay.tasks.detection.config import DETECTORS, Config
from assay.tasks.detection.data import Scenes
from assay.tasks.detection.evaluation import Scores, evaluate
from assay.tasks.detection.letterbox import letterbox, restore
from assay.tasks.detection.reference import Reference, fill
from assay.train.engine import make_optimizer

Detector = Compact | Reference
SMALLEST_BATCH = 4  # of which batch normalization learns anything


def source(config: Config, dataset: Dataset, split: str) -> Scenes:
    return Scenes(config, dataset, split)


class Served(nn.Module):
    """A detector as users call it: images of any size, uint8 [B, C, H, W], to float32 [B, K, 6].

    Each row is x1, y1, x2, y2 in pixels of the image, score, class; best first, padded with rows of score 0.
    """

    def __init__(self, detector: Detector, size: tuple[int, int]) -> None:
        super().__init__()
        self.detector = detector
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        pixels, scale = letterbox(images, self.size)
        extent = torch.stack([torch.scalar_tensor(images.shape[3]), torch.scalar_tensor(images.shape[2])])
        return restore(self.detector.detect(pixels), scale, extent)


class Task(Contract):
    """A detector, its optimizer, the mean of its weights over time, and the names of its classes."""

    def __init__(self, config: ExperimentConfig, dataset: Dataset, context: Context, detector: Detector) -> None:
        assert isinstance(config.task, Config)
        self.config, self.context = config.task, context
        self.classes, self.channels = list(dataset.card.classes), dataset.card.channels
        self.detector = detector
        ema = self.config.ema
        self.average = AveragedModel(detector, multi_avg_fn=_moving(ema)) if ema else None
        self.modules = {"detector": detector, **({} if self.average is None else {"average": self.average})}
        self.optimizers = {"detector": make_optimizer(_groups(detector, config), config.optimizer)}
        self.wrapped = context.wrap(detector)

    @classmethod
    def check(cls, config: ExperimentConfig, dataset: Dataset) -> None:
        task, card = config.task, dataset.card
        assert isinstance(task, Config)
        if card.annotation != "boxes":
            raise InputError(
                f"data: {config.data} tells the {card.annotation} of its images, not boxes: take a dataset of kind "
                "coco, voc or digit_scenes, or another task"
            )
        for split in ("train", "val"):
            if not any(card.counts[split].values()):
                raise InputError(f"data: {config.data} has no box in {split}: nothing can be learnt or measured there")
        if task.weights == "none" and config.train.batch_size < SMALLEST_BATCH:
            raise InputError(
                f"train.batch_size: {config.train.batch_size} is too small for batch normalization from a random "
                f"start: set it to {SMALLEST_BATCH} or more"
            )
        if task.whole:
            _check_whole(task, config.train.compile)
        else:
            _check_compact(task, card.channels)

    @classmethod
    def build(cls, config: ExperimentConfig, dataset: Dataset, context: Context) -> Task:
        task, card = config.task, dataset.card
        assert isinstance(task, Config)
        detector: Detector
        if task.whole:
            detector = Reference(task, card.channels, len(card.classes), card.mean, card.std)
            origin = fill(detector, task, context.fresh)
        else:
            detector = Compact(task, card.channels, len(card.classes), context.fresh)
            origin = detector.backbone.origin
        made = cls(config, dataset, context, detector.to(context.device))
        made.facts = {"pretrained_weights": origin}
        return made

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
        return evaluate(tables["truth"].numpy(), tables["detections"].numpy(), self.classes)

    def pictures(self, tables: Mapping[str, Tensor], source: Any) -> Iterable[Picture]:
        from assay.tasks.detection.pictures import precision_recall, scenes

        truth, detections = tables["truth"].numpy(), tables["detections"].numpy()
        shown = scenes(source, truth, detections, self.classes, self.config.threshold)
        return [*([shown] if shown else []), precision_recall(self._scores(tables))]

    def export(self) -> Export:
        facts = {"classes": self.classes, "channels": self.channels, "threshold": self.config.threshold}
        return Export(
            module=Served(self.best, self.config.size).cpu().eval(),
            example=np.zeros((2, self.channels, *self.config.size), dtype=np.uint8),
            dynamic=(0, 2, 3),
            facts=facts,
            traceable=not self.config.whole,
        )

    @classmethod
    def read(cls, path: Path, facts: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        """uint8 [1, C, H, W]."""
        try:
            return decode(path.read_bytes(), facts["channels"])[None]
        except Rejected as error:
            raise InputError(f"{path}: {error}") from None
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None

    @classmethod
    def describe(
        cls, inputs: np.ndarray[Any, Any], outputs: np.ndarray[Any, Any], facts: Mapping[str, Any]
    ) -> list[Answer]:
        """`boxes`, best first, of the score `threshold` or better, and the image with them drawn in."""
        return [_answer(image, rows, facts) for image, rows in zip(inputs, outputs, strict=True)]


def _answer(image: np.ndarray[Any, Any], rows: np.ndarray[Any, Any], facts: Mapping[str, Any]) -> Answer:
    from PIL import Image

    from assay.data.images import encode_png
    from assay.tasks.detection.pictures import draw

    rows = rows[rows[:, 4] > max(facts["threshold"], 0)]
    boxes = [
        {"class": facts["classes"][int(row[5])], "score": float(row[4]), "box": [float(side) for side in row[:4]]}
        for row in rows
    ]
    drawn = draw(torch.from_numpy(image), torch.zeros(0, 5), torch.from_numpy(rows), facts["classes"])
    return Answer({"boxes": boxes}, (Picture("boxes", encode_png(Image.fromarray(drawn.permute(1, 2, 0).numpy()))),))


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


def _check_compact(task: Config, channels: int) -> None:
    from assay.networks import catalog

    stride = task.strides[-1]
    for side in task.size:
        if side % stride:
            near = max(stride, round(side / stride) * stride)
            raise InputError(f"task.image_size: {side} does not divide by the stride {stride}: take {near}")
    if task.architecture == CONVNET:
        return
    try:
        catalog.check(task.architecture, task.weights, min(task.size), channels)
    except InputError as error:
        whole = difflib.get_close_matches(task.architecture, DETECTORS, n=1, cutoff=0.8)
        raise InputError(f"{error}; of whole detectors, {whole[0]} is near" if whole else str(error)) from None
    with torch.device("meta"):
        catalog.feature_maps(
            task.architecture, channels=channels, weights=task.weights, fresh=False, strides=task.strides
        )


def _check_whole(task: Config, compiled: bool) -> None:
    if compiled:
        raise InputError(
            f"train.compile: torch.compile cannot follow {task.architecture}: set it to false, or name a backbone, "
            "such as timm:tf_efficientnet_lite0, as task.architecture"
        )
    if task.weights != "none":
        fill(Reference(task, 3, 1, [0.5] * 3, [0.25] * 3), task, fresh=True)
