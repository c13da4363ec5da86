"""Classification: one image, one class, learnt by cross entropy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assay.config import ExperimentConfig
from assay.data.dataset import Dataset
from assay.data.images import Rejected, decode
from assay.errors import InputError
from assay.task import Answer, Context, Engine, Export, Metrics, Picture, Source
from assay.task import Task as Contract
from assay.tasks.classification.config import Config
from assay.tasks.classification.data import Images
from assay.tasks.classification.model import Classifier, Served
from assay.train.engine import make_optimizer


def source(config: Config, dataset: Dataset, split: str) -> Images:
    return Images(config, dataset, split)


class Task(Contract):
    """A network, its optimizer and the names of its classes."""

    def __init__(
        self,
        config: Config,
        classes: list[str],
        model: Classifier,
        wrapped: nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.config = config
        self.classes = classes
        self.model = model
        self.wrapped = wrapped
        self.modules = {"model": model}
        self.optimizers = {"model": optimizer}

    @classmethod
    def build(cls, config: ExperimentConfig, dataset: Dataset, context: Context) -> Task:
        task, card = config.task, dataset.card
        assert isinstance(task, Config)
        model = Classifier(task, len(card.classes), card.mean, card.std).to(context.device)
        optimizer = make_optimizer(model.parameters(), config.optimizer)
        return cls(task, list(card.classes), model, context.wrap(model), optimizer)

    def train_step(self, batch: Mapping[str, Tensor], engine: Engine) -> Mapping[str, Tensor]:
        with engine.autocast():
            logits = self.wrapped(batch["image"])
            loss = F.cross_entropy(logits, batch["label"], label_smoothing=self.config.label_smoothing)
        engine.optimize(loss)
        return {"loss": loss}

    def eval_step(self, batch: Mapping[str, Tensor], metrics: Metrics) -> None:
        logits, label = self.model(batch["image"]), batch["label"]
        metrics.add("loss", F.cross_entropy(logits, label, reduction="sum"), len(label))
        classes = len(self.classes)
        pairs = torch.bincount(label * classes + logits.argmax(1), minlength=classes**2)
        metrics.add_counts("confusion", pairs.reshape(classes, classes))

    def summarize(self, tables: Mapping[str, Tensor]) -> Mapping[str, float]:
        """Accuracy, and the mean over classes of F1 (0 for a class that is neither there nor predicted)."""
        confusion = tables["confusion"].double()
        hits, actual, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        f1 = 2 * hits / (actual + predicted).clamp_min(1)
        return {"accuracy": (hits.sum() / confusion.sum()).item(), "macro_f1": f1.mean().item()}

    def pictures(self, tables: Mapping[str, Tensor], source: Source) -> Iterable[Picture]:  # noqa: ARG002
        from assay.report.pictures import confusion

        table = tables["confusion"].tolist()
        cells = [
            {"actual": actual, "predicted": predicted, "count": table[i][j]}
            for i, actual in enumerate(self.classes)
            for j, predicted in enumerate(self.classes)
        ]
        return [Picture("confusion", confusion(table, self.classes), cells)]

    def export(self) -> Export:
        channels, size = len(self.model.mean), self.config.image_size
        return Export(
            module=Served(self.model, size).cpu().eval(),
            example=np.zeros((2, channels, size, size), dtype=np.uint8),
            dynamic=(0, 2, 3),
            facts={"classes": self.classes, "channels": channels},
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
        cls,
        inputs: np.ndarray[Any, Any],  # noqa: ARG003
        outputs: np.ndarray[Any, Any],
        facts: Mapping[str, Any],
    ) -> list[Answer]:
        classes = facts["classes"]
        return [
            Answer(
                {
                    "class": classes[int(row.argmax())],
                    "probability": float(row.max()),
                    "probabilities": dict(zip(classes, map(float, row), strict=True)),
                }
            )
            for row in outputs
        ]
