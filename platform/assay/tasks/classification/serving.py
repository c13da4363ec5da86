"""How a classifier is exported, and what its probabilities mean."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.data.images import decode, read_image
from assay.task import Answer, Export
from assay.task import Serving as Contract

if TYPE_CHECKING:
    from assay.tasks.classification.task import Task


class Serving(Contract["Task"]):
    """Images of any size to the probabilities of the classes."""

    @classmethod
    def export(cls, task: Task) -> Export:
        from assay.tasks.classification.model import Served

        size, thresholds = task.config.image_size, task.model.thresholds
        return Export(
            module=Served(task.model, size).cpu().eval(),
            example=np.zeros((2, task.channels, size, size), dtype=np.uint8),
            dynamic=(0, 2, 3),
            metadata={
                "classes": task.classes,
                "channels": task.channels,
                **({} if thresholds is None else {"thresholds": thresholds.tolist()}),
            },
        )

    @classmethod
    def answered(
        cls, task: Task, source: Any, chosen: np.ndarray[Any, Any]
    ) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Stored images, and the probabilities of the classes."""
        for number in chosen:
            pixels = source.load(number[None], None)["image"]
            image = decode(bytes(source.packed.image(int(number))), task.channels)
            yield image[None], task.model.probabilities(task.model(pixels).float()).numpy()

    def read(self, path: Path) -> np.ndarray[Any, Any]:
        """uint8 [1, C, H, W]."""
        return read_image(path, self.metadata["channels"])

    def describe(self, inputs: np.ndarray[Any, Any], outputs: np.ndarray[Any, Any]) -> list[Answer]:  # noqa: ARG002
        """`class`, `probability` and `probabilities`; with several labels `labels` instead of the first two."""
        return [self._answer(row) for row in outputs]

    def _answer(self, row: np.ndarray[Any, Any]) -> Answer:
        classes = self.metadata["classes"]
        probabilities = dict(zip(classes, map(float, row), strict=True))
        if "thresholds" in self.metadata:
            limits = zip(probabilities.items(), self.metadata["thresholds"], strict=True)
            named: dict[str, Any] = {"labels": [name for (name, p), limit in limits if p >= limit]}
        else:
            named = {"class": classes[int(row.argmax())], "probability": float(row.max())}
        return Answer({**named, "probabilities": probabilities})
