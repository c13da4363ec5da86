"""Pictures of an evaluation, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from assay.report import pictures as draw
from assay.task import Picture, Source
from assay.tasks.classification.metrics import calibration

MISTAKES = 16
COLUMNS = 8


def confusion(table: list[list[int]], classes: Sequence[str]) -> Picture:
    cells = [
        {"actual": actual, "predicted": predicted, "count": table[i][j]}
        for i, actual in enumerate(classes)
        for j, predicted in enumerate(classes)
    ]
    return Picture("confusion", draw.confusion(table, classes), cells)


def of_classes(scores: dict[str, list[float]], samples: Sequence[int], classes: Sequence[str]) -> Picture:
    """Precision, recall and F1 of each class, and how many samples show it."""
    rows = [
        {"class": name, **{key: values[i] for key, values in scores.items()}, "samples": samples[i]}
        for i, name in enumerate(classes)
    ]
    return Picture("classes", draw.bars(scores, classes), rows)


def reliability(confidence: Tensor, right: Tensor) -> Picture:
    sure, hit, share = (column.tolist() for column in calibration(confidence, right))
    rows = [{"confidence": a, "accuracy": b, "share": c} for a, b, c in zip(sure, hit, share, strict=True)]
    return Picture("reliability", draw.reliability(sure, hit, share), rows)


def mistakes(wrong: Sequence[tuple[float, int, str, str]], source: Source) -> list[Picture]:
    """The worst mistakes of (loss, sample, actual, predicted) as images; empty if there are none."""
    worst = sorted(wrong, key=lambda row: (-row[0], row[1]))[:MISTAKES]
    if not worst:
        return []
    images = [_pixels(source, sample) for _, sample, _, _ in worst]
    captions = [f"{_short(actual)}\nsaid {_short(predicted)}" for _, _, actual, predicted in worst]
    rows = [{"sample": n, "actual": a, "predicted": p, "loss": loss} for loss, n, a, p in worst]
    return [Picture("mistakes", draw.grid(images, captions, COLUMNS), rows)]


def _pixels(source: Source, sample: int) -> np.ndarray[Any, Any]:
    """uint8 [H, W] or [H, W, 3]."""
    image: np.ndarray[Any, Any] = source.load(np.array([sample]), None)["image"][0].numpy()
    return image[0] if len(image) == 1 else image.transpose(1, 2, 0)


def _short(text: str) -> str:
    return text if len(text) <= 22 else f"{text[:21]}…"
