"""How a detector is exported, and its boxes in words and drawn into the image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.data.images import decode, encode, read_image
from assay.task import Answer, Export, Picture
from assay.task import Serving as Contract

if TYPE_CHECKING:
    from assay.tasks.detection.task import Task


class Serving(Contract["Task"]):
    """Images of any size to boxes with a class and a score."""

    @classmethod
    def export(cls, task: Task) -> Export:
        from assay.tasks.detection.model import Served

        config = task.config
        return Export(
            module=Served(task.best, config.size).cpu().eval(),
            example=np.zeros((2, task.channels, *config.size), dtype=np.uint8),
            dynamic=(0, 2, 3),
            metadata={"classes": task.classes, "channels": task.channels, "threshold": config.threshold},
            traceable=not config.whole,
        )

    @classmethod
    def answered(
        cls, task: Task, source: Any, chosen: np.ndarray[Any, Any]
    ) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Stored images, and the boxes in them."""
        from assay.tasks.detection.letterbox import restore

        for number in chosen:
            batch = source.load(number[None], None)
            image = decode(bytes(source.packed.image(int(number))), task.channels)
            yield image[None], restore(task.best.detect(batch["image"]), batch["scale"], batch["extent"]).numpy()

    def read(self, path: Path) -> np.ndarray[Any, Any]:
        """uint8 [1, C, H, W]."""
        return read_image(path, self.metadata["channels"])

    def describe(self, inputs: np.ndarray[Any, Any], outputs: np.ndarray[Any, Any]) -> list[Answer]:
        """`boxes` with a score of `threshold` or more, best first, and the image with them drawn in."""
        return [self._answer(image, rows) for image, rows in zip(inputs, outputs, strict=True)]

    def _answer(self, image: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]) -> Answer:
        import torch

        from assay.tasks.detection.pictures import draw

        classes = self.metadata["classes"]
        rows = rows[rows[:, 4] > max(self.metadata["threshold"], 0)]
        boxes = [
            {"class": classes[int(row[5])], "score": float(row[4]), "box": [float(side) for side in row[:4]]}
            for row in rows
        ]
        drawn = draw(torch.from_numpy(image), torch.zeros(0, 5), torch.from_numpy(rows), classes)
        return Answer({"boxes": boxes}, (Picture("boxes", encode(drawn.numpy())),))
