"""Datasets made from what packages ship: real, exact, divided before they are made, and never downloaded."""

from __future__ import annotations

import io
import socket
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from assay.config.card import Card
from assay.config.dataset import DatasetConfig
from assay.data.dataset import prepare
from assay.data.importers import digit_scenes, faces
from assay.data.pack import Packed
from assay.data.samples import Box, Scan
from assay.data.shipped import PHOTOGRAPHS, shipped_file, shipped_image
from assay.errors import InputError
from assay.usecases.check_data import _check_files


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def make(root: Path, **source: Any) -> Card:
    config = DatasetConfig.model_validate({"source": source})
    return prepare(root, "made", config, root / "data" / "made", lambda *_: None)


def scenes(seed: int = 0, size: int = 128, count: int = 60) -> Scan:
    return digit_scenes.scan(digit_scenes.Source(scenes=count, size=size, seed=seed), Path(), lambda *_: None)


def test_scenes_are_a_function_of_the_seed() -> None:
    first, again, other = scenes(), scenes(), scenes(seed=1)
    assert first.digest == again.digest != other.digest
    assert [s.read() for s in first.samples] == [s.read() for s in again.samples]
    assert first.samples[3].read() != other.samples[3].read()
    assert [s.split for s in first.samples] == ["train"] * 42 + ["val"] * 6 + ["test"] * 12
    more = scenes(count=80)
    assert more.samples[0].read() == first.samples[0].read()


def test_scenes_that_are_not_kept_in_memory_are_made_again_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [s.read() for s in scenes(count=20).samples]
    monkeypatch.setattr(digit_scenes, "KEPT", 3 * len(kept[0]))
    assert [s.read() for s in scenes(count=20).samples] == kept


@pytest.mark.parametrize("size", [64, 128])
def test_boxes_of_scenes_are_of_digits_that_can_be_seen(size: int) -> None:
    found = scenes(size=size)
    assert found.annotation == "boxes"
    assert {len(s.boxes) for s in found.samples} == {1, 2, 3, 4}
    for s in found.samples:
        assert (s.facts.width, s.facts.height, s.facts.channels) == (size, size, 3)
        assert s.labels == tuple(sorted({box.label for box in s.boxes}))
        for box in s.boxes:
            assert 0 <= box.x1 < box.x2 <= size
            assert 0 <= box.y1 < box.y2 <= size
            assert 22 / 128 <= (box.y2 - box.y1) / size <= 60 / 128
        for i, a in enumerate(s.boxes):
            assert all(digit_scenes._overlap(a, b) < 0.05 for b in s.boxes[:i])


def test_boxes_are_tight_around_the_ink(monkeypatch: pytest.MonkeyPatch) -> None:
    source, material = digit_scenes.Source(scenes=30), digit_scenes._material(0)["train"]

    def painted(index: int, colour: tuple[int, int, int]) -> tuple[np.ndarray[Any, Any], tuple[Box, ...]]:
        def choose(rng: np.random.Generator, behind: object) -> np.ndarray[Any, Any]:
            rng.uniform(0, 255, (16, 3))  # so that what is drawn after it stays the same
            return np.array(colour)

        monkeypatch.setattr(digit_scenes, "_colour", choose)
        content, boxes = digit_scenes._scene(source, material, index)
        return np.asarray(Image.open(io.BytesIO(content))).astype(int), boxes

    for index in range(30):
        (red, boxes), (green, same) = painted(index, (255, 0, 0)), painted(index, (0, 255, 0))
        assert same == boxes
        ink = (red != green).any(axis=2)
        for box in boxes:
            rows, columns = slice(int(box.y1), int(box.y2)), slice(int(box.x1), int(box.x2))
            window = ink[rows, columns]
            assert all(edge.any() for edge in (window[0], window[-1], window[:, 0], window[:, -1]))
        for box in boxes:
            ink[int(box.y1) : int(box.y2), int(box.x1) : int(box.x2)] = False
        assert not ink.any()


def test_no_digit_and_no_part_of_a_photograph_is_in_two_splits() -> None:
    material = digit_scenes._material(0)
    where = defaultdict(set)
    for name, part in material.items():
        for digit in part.digits:
            where[digit.tobytes()].add(name)
    shared = [splits for splits in where.values() if len(splits) > 1]
    assert shared == []
    assert sum(len(part.digits) for part in material.values()) == 1797
    for index in range(len(digit_scenes.BACKGROUNDS)):
        whole = np.concatenate([material[name].photographs[index] for name in ("train", "val", "test")], axis=1)
        assert np.array_equal(whole, np.asarray(shipped_image(digit_scenes.BACKGROUNDS[index])))


def test_packed_scenes_hold_the_boxes(tmp_path: Path) -> None:
    card = make(tmp_path, kind="digit_scenes", scenes=60)
    assert (card.annotation, card.samples) == ("boxes", {"train": 42, "val": 6, "test": 12})
    packed = Packed(tmp_path / "data" / "made", "train")
    rows = [packed.row(i) for i in range(len(packed))]
    assert packed.columns == ["name", "identity", "image", "width", "height", "boxes", "labels", "ignored"]
    assert sum(len(row["labels"]) for row in rows) == sum(card.counts["train"].values())
    assert all(len(row["boxes"]) == 4 * len(row["labels"]) == 4 * len(row["ignored"]) for row in rows)
    first = scenes().samples[0]
    row = next(row for row in rows if row["name"] == first.name)
    box = first.boxes[0]
    assert row["boxes"][:4] == [box.x1, box.y1, box.x2, box.y2]
    assert row["identity"] == first.identity[:16]
    assert card.boxes == sum(sum(c.values()) for c in card.counts.values())
    assert _check_files(tmp_path / "data" / "made", card, set(card.files), lambda *_: None) == []
    mistaken = card.model_copy(update={"annotation": "class"})
    problems = _check_files(tmp_path / "data" / "made", mistaken, set(card.files), print)
    assert "the columns do not match the annotation 'class'" in problems[0]


def test_faces(tmp_path: Path) -> None:
    found = faces.scan(faces.Source(), Path(), lambda *_: None)
    assert [s.labels for s in found.samples] == [(0,)] * 100 + [(1,)] * 100
    assert {(s.facts.width, s.facts.height, s.facts.channels) for s in found.samples} == {(25, 25, 1)}
    card = make(tmp_path, kind="faces")
    assert card.counts["test"] == {"face": 18, "other": 22}
    assert 0.3 < card.mean[0] < 0.45


def test_pictures_to_paint(tmp_path: Path) -> None:
    card = make(tmp_path, kind="paint")
    assert (card.annotation, card.channels, card.classes) == ("style", 3, ["content", "style"])
    assert card.counts["train"] == {"content": 7, "style": 4}
    assert [card.counts[name] for name in ("val", "test")] == [{"content": 1, "style": 0}, {"content": 1, "style": 0}]
    packed = Packed(tmp_path / "data" / "made", "train")
    styles = [packed.row(i)["name"] for i in range(len(packed)) if packed.column("label")[i] == 1]
    assert sorted(styles) == ["style/brick", "style/gravel", "style/hubble", "style/ihc"]
    for bad in (["brick", "brick"], [], ["gold"]):
        with pytest.raises(ValueError, match=r"styles"):
            DatasetConfig.model_validate({"source": {"kind": "paint", "styles": bad}})


def test_what_a_package_does_not_hold_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(shipped_file(name).is_file() for name in PHOTOGRAPHS.values())
    with pytest.raises(InputError, match=r"eagle\.png: the installed skimage does not contain this image"):
        shipped_file("skimage/eagle.png")
