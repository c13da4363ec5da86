"""What is known about each image, by kind of annotation: its columns, how it is counted, and when a row is valid.

Every kind is one entry of `KINDS`; nothing else in the data layer distinguishes them by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from assay.data.samples import Sample

STYLE_CLASSES = ["content", "style"]


@dataclass(frozen=True)
class Kind:
    """How one kind of annotation is stored.

    Attributes:
        schema: the columns beyond `name`, `image`, `width` and `height`.
        columns: their values for a sample.
        shown: the classes counted for a sample; with boxes, a class is repeated for each box.
        problem: what is wrong with a packed row, given the number of classes; None if nothing is.
        exclusive: each image has exactly one class, which must then be present in each split.
    """

    schema: pa.Schema
    columns: Callable[[Sample], dict[str, Any]]
    shown: Callable[[Sample], Sequence[int]]
    problem: Callable[[Mapping[str, Any], int], str | None]
    exclusive: bool


def class_counts(annotation: str, samples: Sequence[Sample], classes: Sequence[str]) -> dict[str, int]:
    """How many samples show each class, or how many boxes it has."""
    shown = KINDS[annotation].shown
    counts = Counter(label for sample in samples for label in shown(sample))
    return {name: counts[label] for label, name in enumerate(classes)}


def _class_columns(sample: Sample) -> dict[str, Any]:
    (label,) = sample.labels
    return {"label": label}


def _labels_columns(sample: Sample) -> dict[str, Any]:
    return {"labels": sorted(set(sample.labels))}


def _boxes_columns(sample: Sample) -> dict[str, Any]:
    return {
        "boxes": [value for box in sample.boxes for value in (box.x1, box.y1, box.x2, box.y2)],
        "labels": [box.label for box in sample.boxes],
        "ignored": [box.ignored for box in sample.boxes],
    }


def _shown_labels(sample: Sample) -> Sequence[int]:
    return sorted(set(sample.labels))


def _shown_boxes(sample: Sample) -> Sequence[int]:
    return [box.label for box in sample.boxes if not box.ignored]


def _class_problem(row: Mapping[str, Any], classes: int) -> str | None:
    return next(_out_of_range([row["label"]], classes), None)


def _labels_problem(row: Mapping[str, Any], classes: int) -> str | None:
    labels = row["labels"]
    if labels is None:
        return "no list of labels"
    if labels != sorted(set(labels)):
        return f"labels {labels} are not sorted and distinct"
    return next(_out_of_range(labels, classes), None)


def _boxes_problem(row: Mapping[str, Any], classes: int) -> str | None:
    boxes, labels, ignored = row["boxes"], row["labels"], row["ignored"]
    if boxes is None or labels is None or ignored is None:
        return "no list of boxes"
    if len(boxes) != 4 * len(labels) or len(ignored) != len(labels):
        return f"{len(boxes)} coordinates, {len(labels)} labels and {len(ignored)} marks do not match"
    for index in range(len(labels)):
        x1, y1, x2, y2 = boxes[4 * index : 4 * index + 4]
        if not (0 <= x1 < x2 <= row["width"] and 0 <= y1 < y2 <= row["height"]):  # also if one is NaN
            return f"box {index} ({x1:g}, {y1:g}, {x2:g}, {y2:g}) does not lie in {row['width']} x {row['height']}"
    return next(_out_of_range(labels, classes), None)


def _out_of_range(labels: Sequence[int | None], classes: int) -> Iterator[str]:
    for label in labels:
        if label is None or not 0 <= label < classes:
            yield f"label {label} of {classes} classes"


_ONE = pa.schema([pa.field("label", pa.int32())])
_SEVERAL = pa.schema([pa.field("labels", pa.list_(pa.int32()))])
_BOXES = pa.schema(
    [
        pa.field("boxes", pa.list_(pa.float32())),
        pa.field("labels", pa.list_(pa.int32())),
        pa.field("ignored", pa.list_(pa.bool_())),
    ]
)
KINDS: dict[str, Kind] = {
    "class": Kind(_ONE, _class_columns, _shown_labels, _class_problem, exclusive=True),
    "labels": Kind(_SEVERAL, _labels_columns, _shown_labels, _labels_problem, exclusive=False),
    "boxes": Kind(_BOXES, _boxes_columns, _shown_boxes, _boxes_problem, exclusive=False),
    "style": Kind(_ONE, _class_columns, _shown_labels, _class_problem, exclusive=True),
}
