"""How a painting network is exported, and what it answers with: the photograph in each style."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.data.images import encode, read_image
from assay.errors import InputError
from assay.task import Answer, Export, Picture
from assay.task import Serving as Contract

if TYPE_CHECKING:
    from assay.tasks.style_transfer.task import Task

SMALLEST = 8  # pixels a side that the network takes


class Serving(Contract["Task"]):
    """Photographs of any size to one picture for each style."""

    @classmethod
    def export(cls, task: Task) -> Export:
        from assay.tasks.style_transfer.model import Served
        from assay.tasks.style_transfer.task import Painted

        if not isinstance(task, Painted):
            raise InputError(
                "task.method: optimize learns pictures, which are recorded with the run, but no model: "
                "to register one, train with method: network"
            )
        size = task.config.image_size
        return Export(
            module=Served(task.painter, len(task.styles)).cpu().eval(),
            example=np.zeros((2, 3, size, size), dtype=np.uint8),
            dynamic=(0, 2, 3),
            metadata={"styles": task.styles},
        )

    @classmethod
    def answered(
        cls, task: Task, source: Any, chosen: np.ndarray[Any, Any]
    ) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Photographs of an evaluation, and the pictures that it judges: uint8 [1, N, 3, S, S], one for each style."""
        import torch

        from assay.tasks.style_transfer.task import pixels

        for number in np.unique(chosen // source.styles):
            photograph = source.contents[number : number + 1]
            styles = torch.arange(source.styles)
            painted = [task.painted(photograph, style[None]) for style in styles]
            yield photograph.numpy(), pixels(torch.stack(painted, 1)).numpy()

    def read(self, path: Path) -> np.ndarray[Any, Any]:
        """uint8 [1, 3, H, W]."""
        photograph = read_image(path, 3)
        height, width = photograph.shape[2:]
        if min(height, width) < SMALLEST:
            raise InputError(f"{path}: {width} x {height} pixels; at least {SMALLEST} a side are needed")
        return photograph

    def describe(self, inputs: np.ndarray[Any, Any], outputs: np.ndarray[Any, Any]) -> list[Answer]:
        """The photograph in each style: `outputs` are uint8 [B, N, 3, H, W]."""
        height, width = inputs.shape[2:]
        styles = self.metadata["styles"]
        return [
            Answer(
                {"styles": list(styles), "width": width, "height": height},
                [Picture(name, encode(image)) for name, image in zip(names(styles), results, strict=True)],
            )
            for results in outputs
        ]


def names(styles: Sequence[str]) -> list[str]:
    """The styles' names as file names: without folders and suffix, and numbered if equal."""
    short = [Path(style).stem for style in styles]
    return [name if short.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(short)]
