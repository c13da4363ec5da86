"""Latents to points."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.task import Answer, Export
from assay.task import Serving as Contract

if TYPE_CHECKING:
    from tests.support.mixture_gan.task import Task


class Serving(Contract["Task"]):
    @classmethod
    def export(cls, task: Task) -> Export:
        latent = task.config.latent
        example = np.zeros((2, latent), dtype=np.float32)
        return Export(task.generator.cpu().eval(), example, (0,), {"latent": latent})

    @classmethod
    def answered(
        cls, task: Task, source: Any, chosen: np.ndarray[Any, Any]
    ) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        for number in chosen:
            latent = source.load(number[None], None)["latent"]
            yield latent.numpy(), task.generator(latent).numpy()

    def read(self, path: Path) -> np.ndarray[Any, Any]:
        """A latent from a text file of numbers, [1, latent]."""
        return np.array([float(word) for word in path.read_text().split()], dtype=np.float32)[None]

    def describe(self, inputs: np.ndarray[Any, Any], outputs: np.ndarray[Any, Any]) -> list[Answer]:
        return [Answer({"point": row.tolist()}) for row in outputs]
