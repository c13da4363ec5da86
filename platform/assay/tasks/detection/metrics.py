"""Average precision and recall as COCO defines them (Lin et al., "Microsoft COCO", ECCV 2014), by faster-coco-eval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]
AREAS = ("small", "medium", "large")
MOST = 100  # detections of an image that count


@dataclass(frozen=True)
class Scores:
    """What an evaluation found.

    Attributes:
        metrics: `map` (mean over classes and IoU .50 to .95), `map_50`, `map_75`, `mar_100`, and `map_small`,
            `map_medium` and `map_large` if the split has such boxes (below 32², to 96², above, in raw pixels).
        classes: for each class {class, boxes, map, map_50}; the last two are None for a class without a box.
        precision: at IoU .5 and recall 0, .01, … 1, for each class with a box.
    """

    metrics: dict[str, float]
    classes: list[dict[str, Any]]
    precision: dict[str, list[float]]


def coco_scores(truth: Rows, detections: Rows, classes: Sequence[str]) -> Scores:
    """Score the detections of a split. Classes without a box are left out of each mean.

    Args:
        truth: [n, 7]: number of the image, x1, y1, x2, y2, class, ignored. Ignored boxes (COCO's crowds) need
            not be found, but finding them is no mistake.
        detections: [m, 7]: number of the image, x1, y1, x2, y2, score, class.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    images = np.unique(np.concatenate([truth[:, 0], detections[:, 0]])).astype(int).tolist()
    actual = COCO(
        {
            "images": [{"id": image} for image in images],
            "categories": [{"id": number, "name": name} for number, name in enumerate(classes)],
            "annotations": [_actual(number, row) for number, row in enumerate(truth.tolist(), 1)],
        }
    )
    found = actual.loadRes([_found(row) for row in detections.tolist()])
    evaluation = COCOeval_faster(actual, found, "bbox")
    evaluation.params.maxDets = [1, 10, MOST]
    evaluation.evaluate()
    evaluation.accumulate()
    return _scores(evaluation.eval["precision"], evaluation.eval["recall"], truth, classes)


def _actual(number: int, row: list[float]) -> dict[str, Any]:
    image, x1, y1, x2, y2, label, ignored = row
    box = [x1, y1, x2 - x1, y2 - y1]
    return {
        "id": number,
        "image_id": int(image),
        "category_id": int(label),
        "bbox": box,
        "area": box[2] * box[3],
        "iscrowd": int(ignored),
    }


def _found(row: list[float]) -> dict[str, Any]:
    image, x1, y1, x2, y2, score, label = row
    return {"image_id": int(image), "category_id": int(label), "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}


def _scores(precision: Rows, recall: Rows, truth: Rows, classes: Sequence[str]) -> Scores:
    """`precision` [IoU .50 to .95, recall 0 to 1, class, area, most], `recall` [IoU, class, area, most]; -1: none."""
    metrics = {
        "map": _mean(precision[:, :, :, 0, -1]) or 0.0,
        "map_50": _mean(precision[0, :, :, 0, -1]) or 0.0,
        "map_75": _mean(precision[5, :, :, 0, -1]) or 0.0,
        "mar_100": _mean(recall[:, :, 0, -1]) or 0.0,
    }
    for number, area in enumerate(AREAS, 1):
        value = _mean(precision[:, :, :, number, -1])
        if value is not None:
            metrics[f"map_{area}"] = value
    counted = truth[truth[:, 6] == 0, 5].astype(int)
    table = [
        {
            "class": name,
            "boxes": int((counted == number).sum()),
            "map": _mean(precision[:, :, number, 0, -1]),
            "map_50": _mean(precision[0, :, number, 0, -1]),
        }
        for number, name in enumerate(classes)
    ]
    curves = {
        name: precision[0, :, number, 0, -1].tolist()
        for number, name in enumerate(classes)
        if precision[0, 0, number, 0, -1] >= 0
    }
    return Scores(metrics, table, curves)


def _mean(values: Rows) -> float | None:
    """Of the defined values; None if there are none."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None
