"""Metrics of a whole split, from a row for each sample or a table of counts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BINS = 15
TOP = 5

Columns = Mapping[str, Tensor]


def per_class(hits: Tensor, actual: Tensor, predicted: Tensor) -> dict[str, list[float]]:
    """Precision, recall and F1 of each class from counts [K]; 0 for a class that neither occurs nor is predicted."""
    hits, actual, predicted = hits.double(), actual.double(), predicted.double()
    return {
        "precision": (hits / predicted.clamp_min(1)).tolist(),
        "recall": (hits / actual.clamp_min(1)).tolist(),
        "f1": (2 * hits / (actual + predicted).clamp_min(1)).tolist(),
    }


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def calibration(confidence: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each of 15 equal bins of confidence that is not empty: mean confidence, accuracy, share of the samples."""
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    count = torch.bincount(bins, minlength=BINS).double()
    sure = torch.bincount(bins, confidence.double(), BINS) / count.clamp_min(1)
    hit = torch.bincount(bins, right.double(), BINS) / count.clamp_min(1)
    filled = count > 0
    return sure[filled], hit[filled], (count / count.sum())[filled]


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """The expected calibration error (Naeini, Cooper and Hauskrecht, AAAI 2015)."""
    sure, hit, share = calibration(confidence, right)
    return float((share * (sure - hit).abs()).sum())


def best_thresholds(targets: NDArray[np.float64], probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """[K]: for each class the probability from which naming it gives the best F1; 0.5 for a class that does not occur.

    Both arguments are [N, K]. A threshold lies halfway to the next lower probability.
    """
    from sklearn.metrics import precision_recall_curve

    chosen = np.full(targets.shape[1], 0.5)
    for label in np.flatnonzero(targets.any(0)):
        precision, recall, steps = precision_recall_curve(targets[:, label], probabilities[:, label])
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        best = int(f1[:-1].argmax())
        lower = probabilities[:, label][probabilities[:, label] < steps[best]].max(initial=0.0)
        chosen[label] = (steps[best] + lower) / 2
    return chosen


def mean_average_precision(targets: NDArray[np.float64], probabilities: NDArray[np.float64]) -> float:
    """The mean over the classes that occur of the area under precision by recall."""
    from sklearn.metrics import average_precision_score

    there = np.flatnonzero(targets.any(0))
    areas = [average_precision_score(targets[:, label], probabilities[:, label]) for label in there]
    return float(np.mean(areas)) if areas else 0.0
