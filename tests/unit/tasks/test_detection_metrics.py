"""The metrics of a detection are those of pycocotools, and defined where nothing was found."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from assay.tasks.detection.metrics import coco_scores

CLASSES = ["one", "two", "three"]
NAMES = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_100")
PLACES = (0, 1, 2, 3, 4, 5, 8)  # of these in COCOeval.stats

Rows = NDArray[np.float64]


def scene(rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Truth [n, 7] and detections [m, 7] of a few images: near hits, misses, crowds, equal scores, empty images."""
    images = int(rng.integers(1, 5))
    count = int(rng.integers(0, 12))
    low = rng.uniform(0, 200, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(4, 150, (count, 2))], 1).round(1)
    image, label = rng.integers(0, images, (count, 1)), rng.integers(0, 1 + rng.integers(3), (count, 1))
    truth = np.concatenate([image, boxes, label, rng.random((count, 1)) < 0.2], 1).astype(np.float64)
    near = truth[rng.random(count) < 0.8]
    near = np.repeat(near, int(rng.integers(1, 3)), axis=0)
    found = near[:, [0, 1, 2, 3, 4, 6, 5]].copy()
    found[:, 1:5] += rng.normal(0, 4, (len(found), 4))
    found[:, 3:5] = np.maximum(found[:, 3:5], found[:, 1:3] + 1)
    found[:, 5] = rng.random(len(found)).round(1)
    wrong = rng.uniform(0, 100, (int(rng.integers(0, 4)), 7))
    wrong[:, 3:5] += wrong[:, 1:3] + 1
    wrong[:, 0], wrong[:, 5], wrong[:, 6] = images - 1, rng.random(len(wrong)), rng.integers(0, 3, len(wrong))
    return truth, np.concatenate([found, wrong])


def reference(truth: Rows, found: Rows) -> dict[str, float]:
    """What pycocotools says; -1 where nothing is defined."""
    images = np.unique(np.concatenate([truth[:, 0], found[:, 0]])).astype(int).tolist()
    with contextlib.redirect_stdout(io.StringIO()):
        actual = COCO()
        actual.dataset = {
            "images": [{"id": i} for i in images],
            "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES)],
            "annotations": [
                {
                    "id": i + 1,
                    "image_id": int(r[0]),
                    "category_id": int(r[5]),
                    "bbox": [r[1], r[2], r[3] - r[1], r[4] - r[2]],
                    "area": (r[3] - r[1]) * (r[4] - r[2]),
                    "iscrowd": int(r[6]),
                }
                for i, r in enumerate(truth)
            ],
        }
        actual.createIndex()
        results = [
            {
                "image_id": int(r[0]),
                "category_id": int(r[6]),
                "bbox": [r[1], r[2], r[3] - r[1], r[4] - r[2]],
                "score": r[5],
            }
            for r in found
        ]
        evaluation = COCOeval(actual, actual.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(NAMES, evaluation.stats[list(PLACES)].tolist(), strict=True))


def test_two_hundred_random_cases_equal_pycocotools() -> None:
    compared = 0
    for seed in range(240):
        truth, found = scene(np.random.default_rng(seed))
        if not len(found):  # which pycocotools does not take
            continue
        expected, got = reference(truth, found), coco_scores(truth, found, CLASSES).metrics
        for name, value in expected.items():
            if value < 0:
                assert got.get(name, 0.0) == 0.0
                assert not name.endswith(("small", "medium", "large")) or name not in got
            else:
                assert got[name] == pytest.approx(value, abs=1e-6), (seed, name)
        compared += 1
    assert compared >= 200


def test_nothing_found_is_zero() -> None:
    truth = np.array([[0, 0, 0, 50, 50, 1, 0.0]])
    scores = coco_scores(truth, np.zeros((0, 7)), CLASSES)
    assert scores.metrics == {"map": 0.0, "map_50": 0.0, "map_75": 0.0, "mar_100": 0.0, "map_medium": 0.0}
    assert list(scores.precision) == ["two"]


def test_no_box_and_nothing_found_is_zero() -> None:
    scores = coco_scores(np.zeros((0, 7)), np.zeros((0, 7)), CLASSES)
    assert scores.metrics == {"map": 0.0, "map_50": 0.0, "map_75": 0.0, "mar_100": 0.0}
    assert [row["map"] for row in scores.classes] == [None] * 3


def test_a_class_without_a_box_is_left_out_of_the_mean() -> None:
    truth = np.array([[0, 0, 0, 50, 50, 1, 0.0]])
    found = np.array([[0, 0, 0, 50, 50, 0.9, 1], [0, 0, 0, 20, 20, 0.8, 2]])
    scores = coco_scores(truth, found, CLASSES)
    assert scores.metrics["map"] == pytest.approx(1.0)
    assert [(row["boxes"], row["map"]) for row in scores.classes] == [(0, None), (1, pytest.approx(1.0)), (0, None)]


def test_finding_an_ignored_box_is_neither_right_nor_wrong() -> None:
    truth = np.array([[0, 0, 0, 50, 50, 0, 0.0], [0, 100, 100, 160, 160, 0, 1.0]])
    hit, crowd = [0, 0, 0, 50, 50, 0.5, 0], [0, 100, 100, 160, 160, 0.9, 0]
    assert coco_scores(truth, np.array([hit, crowd]), CLASSES).metrics["map"] == pytest.approx(1.0)
    truth[1, 6] = 0.0
    truth[1, 5] = 1.0
    assert coco_scores(truth, np.array([hit, crowd]), CLASSES).metrics["map"] < 0.6
