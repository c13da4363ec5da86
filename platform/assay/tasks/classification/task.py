"""Classification: one image, one class, learnt by cross entropy; or all classes that it shows, each by itself."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.config.experiment import ExperimentConfig
from assay.data.dataset import Dataset
from assay.task import Context, Engine, Metrics, Picture, Source
from assay.task import Task as Contract
from assay.tasks.classification import checks, pictures
from assay.tasks.classification.config import Config
from assay.tasks.classification.data import Images
from assay.tasks.classification.metrics import (
    TOP,
    best_thresholds,
    calibration_error,
    mean,
    mean_average_precision,
    per_class,
)
from assay.tasks.classification.model import Classifier, make_network, moments
from assay.tasks.classification.transfer import Thaw
from assay.train.engine import make_optimizer


def source(config: Config, dataset: Dataset, split: str) -> Images:
    return Images(config, dataset, split)


class Task(Contract):
    """A network, its optimizer and the names of its classes."""

    def __init__(self, config: ExperimentConfig, dataset: Dataset, context: Context) -> None:
        task, card = config.task, dataset.card
        assert isinstance(task, Config)
        self.config = task
        self.context = context
        self.classes = list(card.classes)
        self.channels = card.channels
        labels = len(self.classes) if task.multi_label else 0
        network, origin = make_network(task, card.channels, len(self.classes), context.pretrained)
        self.model = Classifier(network, *moments(task, card.mean, card.std), labels).to(context.device)
        self.thaw = Thaw(self.model.network, task.transfer)
        self.wrapped: nn.Module | None = context.wrap(self.model)
        self.modules = {"model": self.model}
        self.optimizers = {"model": make_optimizer(self.thaw.groups(config.optimizer.lr), config.optimizer)}
        self.weight = _weights(task, dataset).to(context.device) if task.balance == "weights" else None
        self.notes = {"weights": origin, "trainable_parameters": str(self.thaw.trainable())}
        self._to_fit = False

    @classmethod
    def check(cls, config: ExperimentConfig, dataset: Dataset) -> None:
        checks.check(config, dataset)

    @classmethod
    def build(cls, config: ExperimentConfig, dataset: Dataset, context: Context) -> Task:
        return cls(config, dataset, context)

    def train(self, mode: bool) -> None:
        super().train(mode)
        if mode:
            self.thaw.train()
            self._to_fit = True  # the next evaluation is that of the validation split

    def train_step(self, batch: Mapping[str, Tensor], engine: Engine) -> Mapping[str, Tensor]:
        if self.thaw.follow(engine.progress):
            self.thaw.train()
            self.wrapped = None  # let go of the old wrapper's hooks first
            self.wrapped = self.context.wrap(self.model)
        assert self.wrapped is not None
        with engine.autocast():
            loss = self._losses(self.wrapped(batch["image"]), batch["target"]).mean()
        engine.optimize(loss)
        return {"loss": loss}

    def _losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """[B], weighted and smoothed as configured."""
        smoothing = self.config.label_smoothing
        if not self.config.multi_label:
            return F.cross_entropy(logits, target, self.weight, label_smoothing=smoothing, reduction="none")
        smooth = target * (1 - smoothing) + smoothing / 2
        losses = F.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
        if self.weight is not None:
            losses = losses * (target * self.weight[0] + (1 - target) * self.weight[1])
        return losses.mean(1)

    def eval_step(self, batch: Mapping[str, Tensor], metrics: Metrics) -> None:
        logits, target = self.model(batch["image"]).float(), batch["target"]
        probabilities = self.model.probabilities(logits)
        number = batch["index"][:, None].double()
        if self.config.multi_label:
            losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)
            metrics.add_rows("samples", torch.cat([number, losses[:, None], target, probabilities], 1))
        else:
            losses = F.cross_entropy(logits, target, reduction="none")
            metrics.add_counts("confusion", _confusion(target, logits.argmax(1), len(self.classes)))
            confidence, predicted = probabilities.max(1)
            rank = (logits > logits.gather(1, target[:, None])).sum(1)
            rows = [number[:, 0], losses, target, predicted, confidence, rank]
            metrics.add_rows("samples", torch.stack([row.double() for row in rows], 1))
        metrics.add("loss", losses.sum(), len(losses))

    def summarize(self, tables: Mapping[str, Tensor]) -> Mapping[str, float]:
        fit, self._to_fit = self._to_fit, False
        return self._summarize_labels(tables["samples"], fit) if self.config.multi_label else _summarize_class(tables)

    def _summarize_labels(self, rows: Tensor, fit: bool) -> Mapping[str, float]:
        """The thresholds follow from the validation split, after each epoch; any other split uses them unchanged."""
        targets, probabilities = self._split_rows(rows)
        assert self.model.thresholds is not None
        if fit:
            found = best_thresholds(targets.numpy(), probabilities.numpy())
            self.model.thresholds.copy_(torch.from_numpy(found))
        predicted = self._predict(probabilities)
        return {
            "macro_f1": mean(_label_scores(targets, predicted)["f1"]),
            "accuracy": (predicted == targets.bool()).all(1).double().mean().item(),
            "map": mean_average_precision(targets.numpy(), probabilities.numpy()),
        }

    def _split_rows(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Targets and probabilities, [N, K] each."""
        return rows[:, 2 : 2 + len(self.classes)], rows[:, 2 + len(self.classes) :]

    def _predict(self, probabilities: Tensor) -> Tensor:
        assert self.model.thresholds is not None
        return probabilities >= self.model.thresholds.cpu()

    def pictures(self, tables: Mapping[str, Tensor], source: Source) -> list[Picture]:
        rows = tables["samples"]
        if self.config.multi_label:
            targets, probabilities = self._split_rows(rows)
            predicted = self._predict(probabilities)
            wrong = (predicted != targets.bool()).any(1)
            listed = [
                (row[1].item(), int(row[0]), self._names(target), self._names(answer))
                for row, target, answer in zip(rows[wrong], targets[wrong], predicted[wrong], strict=True)
            ]
            shown = pictures.of_classes(_label_scores(targets, predicted), targets.sum(0).int().tolist(), self.classes)
            return [shown, *pictures.mistakes(listed, source)]
        table = tables["confusion"]
        right = rows[:, 2] == rows[:, 3]
        listed = [
            (row[1], int(row[0]), self.classes[int(row[2])], f"{self.classes[int(row[3])]} {row[4]:.2f}")
            for row in rows[~right].tolist()
        ]
        return [
            pictures.confusion(table.tolist(), self.classes),
            pictures.of_classes(_class_scores(table), table.sum(1).tolist(), self.classes),
            pictures.reliability(rows[:, 4], right),
            *pictures.mistakes(listed, source),
        ]

    def _names(self, shown: Tensor) -> str:
        return ", ".join(name for name, is_shown in zip(self.classes, shown.tolist(), strict=True) if is_shown) or "-"


def _weights(config: Config, dataset: Dataset) -> Tensor:
    """Loss weights by how rare a class is, their mean over the training split 1: [K], or [2, K] of shown and not."""
    counts = torch.tensor(list(dataset.card.counts["train"].values()), dtype=torch.float64)
    if not config.multi_label:
        return (counts.sum() / (len(counts) * counts)).float()
    share = Images(config, dataset, "train").targets.double().mean(0).clamp(1e-6, 1 - 1e-6)
    return torch.stack([0.5 / share, 0.5 / (1 - share)]).float()


def _confusion(target: Tensor, predicted: Tensor, classes: int) -> Tensor:
    return torch.bincount(target * classes + predicted, minlength=classes**2).reshape(classes, classes)


def _class_scores(confusion: Tensor) -> dict[str, list[float]]:
    return per_class(confusion.diagonal(), confusion.sum(1), confusion.sum(0))


def _label_scores(targets: Tensor, predicted: Tensor) -> dict[str, list[float]]:
    return per_class((predicted & targets.bool()).sum(0), targets.sum(0), predicted.sum(0))


def _summarize_class(tables: Mapping[str, Tensor]) -> Mapping[str, float]:
    confusion, rows = tables["confusion"], tables["samples"]
    right, rank = rows[:, 2] == rows[:, 3], rows[:, 5]
    found = {
        "accuracy": (confusion.diagonal().sum() / confusion.sum()).item(),
        "macro_f1": mean(_class_scores(confusion)["f1"]),
        "ece": calibration_error(rows[:, 4], right),
    }
    if len(confusion) > TOP:
        found["top5"] = (rank < TOP).double().mean().item()
    return found
