"""Boxes of any numbers: those kept lie in their image, the others are reported, and boxes turn with their image."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from assay.data.boxes import Corners, Drawn, Fitted, annotated_turn, fit, number, upright
from assay.data.images import ImageFacts, Rejected, decode, inspect
from assay.data.importers.coco import _box
from assay.data.importers.voc import _object, _parse
from tests.support.bad_images import encoded

FACTS = ImageFacts("PNG", "RGB", 32, 24, 3, (), b"", 1)
REAL = st.floats(width=64)


def fitted(*corners: Corners) -> Fitted:
    return fit("a.png", [Drawn(c, "x") for c in corners], FACTS, 1)


def whole(result: Fitted) -> list[Corners]:
    return [(box.x1, box.y1, box.x2, box.y2) for box, _ in result.boxes]


def test_what_sticks_out_is_clipped_and_counted_by_image() -> None:
    result = fitted((-3, -2, 5, 6), (30, 20, 40, 30), (1, 1, 2, 2), (0, 0, 32.001, 24))
    assert whole(result) == [(0, 0, 5, 6), (30, 20, 32, 24), (1, 1, 2, 2), (0, 0, 32, 24)]
    assert result.converted == [{"file": "a.png", "change": "2 of 4 boxes clipped to the image"}]
    assert result.rejected == []


def test_what_is_no_box_is_dropped_and_named() -> None:
    inside = (1.0, 1.0, 5.0, 5.0)
    result = fitted((5, 5, 5, 9), (9, 9, 8, 10), (32, 0, 40, 5), (-9, 0, 0, 5), inside, inside, (1, 1, 1 + 1e-9, 2))
    assert whole(result) == [inside]
    reasons = {item["file"]: item["reason"] for item in result.rejected}
    assert list(reasons) == [f"a.png#{n}" for n in (1, 2, 3, 4, 6, 7)]
    assert "no area" in reasons["a.png#1"]
    assert "no area" in reasons["a.png#2"]
    assert "lies outside the image of 32 x 24" in reasons["a.png#3"]
    assert "lies outside the image" in reasons["a.png#4"]
    assert reasons["a.png#6"] == "the same box as #5"
    assert "no area in the image" in reasons["a.png#7"]


@given(st.lists(st.tuples(REAL, REAL, REAL, REAL), max_size=6))
def test_each_box_is_kept_inside_or_named(corners: list[Corners]) -> None:
    result = fitted(*corners)
    assert len(result.boxes) + len(result.rejected) == len(corners)
    for x1, y1, x2, y2 in np.array(whole(result), dtype=np.float32).reshape(-1, 4):
        assert 0 <= x1 < x2 <= 32
        assert 0 <= y1 < y2 <= 24


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON, JSON)
def test_any_json_is_a_box_or_has_a_reason(bbox: Any, category: Any, crowd: Any) -> None:
    entry = {"bbox": bbox, "category_id": category, "iscrowd": crowd}
    drawn = _box(entry, {0: "x", 1: "y"})
    assert (drawn.corners is None) == bool(drawn.reason)
    assert "\n" not in drawn.reason
    result = fit("a.png", [drawn], FACTS, 1)
    assert len(result.boxes) + len(result.rejected) == 1


@given(st.lists(st.one_of(REAL, st.integers(-5, 50)), min_size=4, max_size=4))
def test_coco_boxes_are_a_corner_and_a_size(values: list[float]) -> None:
    drawn = _box({"bbox": json.loads(json.dumps(values)), "category_id": 1}, {1: "y"})
    if all(math.isfinite(value) for value in values):
        x, y, width, height = values
        assert drawn.corners == (x, y, x + width, y + height)
    else:
        assert "not finite" in drawn.reason


TEXT = st.one_of(
    st.integers(-9, 60).map(str), REAL.map(repr), st.text(st.characters(categories=("L", "N")), max_size=6)
)


@given(st.lists(TEXT, min_size=4, max_size=4))
def test_voc_boxes_count_from_one_and_hold_their_last_pixel(texts: list[str]) -> None:
    keys = ("xmin", "ymin", "xmax", "ymax")
    inner = "".join(f"<{key}>{text}</{key}>" for key, text in zip(keys, texts, strict=True))
    xml = f"<annotation><object><name>x</name><bndbox>{inner}</bndbox></object></annotation>"
    (element,) = _parse(xml.encode()).iterfind("object")
    drawn = _object(element)
    try:
        values = [float(text) for text in texts]
    except ValueError:
        assert "is not a number" in drawn.reason or "not finite" in drawn.reason
        return
    if all(math.isfinite(value) for value in values):
        assert drawn.corners == (values[0] - 1, values[1] - 1, values[2], values[3])
    else:
        assert "not finite" in drawn.reason


@pytest.mark.parametrize("value", [True, None, "5", [1], float("inf"), float("nan"), 10**400, {}])
def test_what_is_no_finite_number_is_refused(value: object) -> None:
    with pytest.raises(Rejected, match="not"):
        number(value)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_their_image(orientation: int) -> None:
    stored = np.zeros((24, 32), dtype=np.uint8)
    stored[3:10, 5:9] = 255  # the box (5, 3, 9, 10) in the pixels of the file
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(stored), "PNG", exif=exif)
    facts = inspect(content)
    rows, columns = np.nonzero(decode(content, 1)[0])
    if orientation < 5:
        assert annotated_turn(facts, 32, 24) == 1  # drawn on the upright image, as viewers show it
        return
    turn = annotated_turn(facts, 32, 24)
    assert turn == orientation
    assert annotated_turn(facts, 24, 32) == 1
    found = upright((5, 3, 9, 10), turn, facts.width, facts.height)
    assert found == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    result = fit("a.png", [Drawn((5, 3, 9, 10), "x")], facts, turn)
    assert whole(result) == [found]
    assert "turned upright" in result.converted[0]["change"]


def test_another_size_than_annotated_is_refused() -> None:
    with pytest.raises(Rejected, match="annotated as 64 x 48, but it is 32 x 24"):
        annotated_turn(FACTS, 64, 48)
    with pytest.raises(Rejected, match="annotated as 24 x 32"):
        annotated_turn(FACTS, 24, 32)
