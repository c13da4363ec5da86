"""Boxes from untrusted annotations: those that fit their image are kept, the others are reported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from assay.data.images import ImageFacts, Rejected
from assay.data.raw import File, converted_lines, copies_warning, sample
from assay.data.samples import Box, Sample, Scan
from assay.errors import InputError

TOLERANCE = 0.01
"""Pixels by which a box may stick out of its image before it is reported as clipped: rounding can cause as much."""

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Drawn:
    """A box as annotated: the corners in the annotation's pixels, or the reason why there are none."""

    corners: Corners | None
    name: str
    """The name of its class."""
    ignored: bool = False
    reason: str = ""


@dataclass
class Fitted:
    """The boxes kept for one image, each with the name of its class, and what to report."""

    boxes: list[tuple[Box, str]] = field(default_factory=list)
    rejected: list[dict[str, str]] = field(default_factory=list)
    converted: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Annotated:
    """An image with its annotation: its boxes, its size (None if not given), its split."""

    file: File
    drawn: Sequence[Drawn]
    size: tuple[float, float] | None
    split: str | None


def scan_of(
    annotated: Sequence[Annotated],
    classes: Sequence[str],
    rejected: Sequence[dict[str, str]],
    warnings: Sequence[str],
    shown: str,
    digest: str,
) -> Scan:
    """The scan of a folder that was annotated with boxes; classes without a box are left out.

    `rejected` and `warnings` come from before the boxes were checked. Raises `InputError` if no box is left.
    """
    found: list[tuple[Annotated, Fitted]] = []
    rejected, converted = list(rejected), []
    for item in annotated:
        try:
            assert item.file.facts is not None
            turn = annotated_turn(item.file.facts, *item.size) if item.size else 1
        except Rejected as error:
            rejected.append({"file": item.file.shown, "reason": str(error)})
            continue
        fitted = fit(item.file.shown, item.drawn, item.file.facts, turn)
        rejected += fitted.rejected
        converted += [*converted_lines([item.file]), *fitted.converted]
        found.append((item, fitted))
    used = {name for _, fitted in found for _, name in fitted.boxes}
    if not used:
        first = f"; the first problem: {rejected[0]['file']}: {rejected[0]['reason']}" if rejected else ""
        raise InputError(f"{shown}: no good box in {len(found)} good images{first}")
    kept = [name for name in classes if name in used]
    labels = {name: label for label, name in enumerate(kept)}
    samples = []
    for item, fitted in found:
        boxes = tuple(replace(box, label=labels[name]) for box, name in fitted.boxes)
        seen = tuple(sorted({box.label for box in boxes if not box.ignored}))
        samples.append(sample(item.file, seen, boxes, item.split))
    unused = [name for name in classes if name not in used]
    lines = [*warnings, *copies_warning([item.file for item, _ in found]), *_missing(samples, unused)]
    return Scan(samples, kept, rejected, converted, lines, digest, "boxes")


def _missing(samples: Sequence[Sample], unused: Sequence[str]) -> list[str]:
    """Warnings about images and classes without boxes."""
    empty = sum(not sample.boxes for sample in samples)
    lines = [f"{empty} images have no box: they are kept as background"] if empty else []
    return [*lines, f"classes without a good box, left out: {', '.join(unused)}"] if unused else lines


def number(value: Any) -> float:
    """A finite number from a file. Raises `Rejected` for anything else."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError
        result = float(value)
    except (ValueError, OverflowError):
        raise Rejected(f"{_short(value)} is not a number") from None
    if not math.isfinite(result):
        raise Rejected(f"{_short(value)} is not finite")
    return result


def annotated_turn(facts: ImageFacts, width: float, height: float) -> int:
    """The EXIF orientation by which boxes drawn on a `width` x `height` image must be turned, 1 for none.

    Raises:
        Rejected: the image has a different size, so the boxes cannot fit it.
    """
    if (width, height) == (facts.width, facts.height):
        return 1
    if facts.orientation >= 5 and (height, width) == (facts.width, facts.height):
        return facts.orientation
    raise Rejected(
        f"annotated as {width:g} x {height:g}, but it is {facts.width} x {facts.height}: the boxes do not fit"
    )


def upright(corners: Corners, orientation: int, width: int, height: int) -> Corners:
    """Convert corners from the file's pixels to those of the upright image, which is `width` x `height`."""
    x1, y1, x2, y2 = corners
    turned = {5: (y1, x1, y2, x2), 6: (width - y2, x1, width - y1, x2), 8: (y1, height - x2, y2, height - x1)}
    turned[7] = (width - y2, height - x2, width - y1, height - x1)
    return turned.get(orientation, corners)


def fit(image: str, drawn: Sequence[Drawn], facts: ImageFacts, orientation: int) -> Fitted:
    """Clip the boxes to their image and reject those that are not boxes. The n-th is reported as `<image>#<n>`."""
    result = Fitted()
    seen: dict[tuple[float, float, float, float, str], int] = {}
    clipped = 0
    for count, item in enumerate(drawn, 1):
        try:
            corners, cut = _fitted(item, facts, orientation)
            key = (*corners, item.name)
            if key in seen:
                raise Rejected(f"the same box as #{seen[key]}")
        except Rejected as error:
            result.rejected.append({"file": f"{image}#{count}", "reason": str(error)})
            continue
        seen[key] = count
        clipped += cut
        result.boxes.append((Box(*corners, label=-1, ignored=item.ignored), item.name))
    if clipped:
        result.converted.append({"file": image, "change": f"{clipped} of {len(drawn)} boxes clipped to the image"})
    if orientation != 1 and result.boxes:
        change = f"{len(result.boxes)} boxes turned upright with the image (EXIF orientation {orientation})"
        result.converted.append({"file": image, "change": change})
    return result


def _fitted(item: Drawn, facts: ImageFacts, orientation: int) -> tuple[Corners, bool]:
    """Corners inside the image, exactly as float32 stores them, and whether anything was cut off."""
    if item.corners is None:
        raise Rejected(item.reason)
    x1, y1, x2, y2 = upright(item.corners, orientation, facts.width, facts.height)
    shown = f"({x1:g}, {y1:g}, {x2:g}, {y2:g})"
    if not (x1 < x2 and y1 < y2):
        raise Rejected(f"the box {shown} has no area")
    if x1 >= facts.width or y1 >= facts.height or x2 <= 0 or y2 <= 0:
        raise Rejected(f"the box {shown} lies outside the image of {facts.width} x {facts.height}")
    inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(facts.width)), min(y2, float(facts.height)))
    left, top, right, bottom = np.array(inside, dtype=np.float32).tolist()
    if not (left < right and top < bottom):
        raise Rejected(f"the box {shown} has no area in the image")
    cut = any(abs(a - b) > TOLERANCE for a, b in zip(inside, (x1, y1, x2, y2), strict=True))
    return (left, top, right, bottom), cut


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
