"""COCO folders as tools write them, and as they should not be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from assay.data.importers import detect
from assay.data.importers.coco import Source, scan
from assay.data.samples import Scan
from assay.errors import InputError
from tests.support.bad_images import CLASSES, coco, coco_folder, picture


def look(path: Path) -> Scan:
    return scan(Source(path=str(path), sha256=""), path.parent, lambda *_: None)


def rewrite(folder: Path, data: Any) -> Scan:
    text = data if isinstance(data, str) else json.dumps(data)
    (folder / "annotations.json").write_text(text)
    return look(folder)


def reasons(found: Scan) -> dict[str, str]:
    return {item["file"]: item["reason"] for item in found.rejected}


def test_boxes_come_with_their_images(tmp_path: Path) -> None:
    coco_folder(tmp_path / "raw")
    (tmp_path / "raw" / "README.txt").write_text("about")
    assert detect(tmp_path / "raw") == "coco"
    found = look(tmp_path / "raw")
    assert (found.annotation, found.classes, found.rejected, found.converted) == ("boxes", list(CLASSES), [], [])
    assert [s.name for s in found.samples] == [f"{i:02d}.png" for i in range(12)]
    one, two = found.samples[4], found.samples[5]
    assert [(b.x1, b.y1, b.x2, b.y2, b.label) for b in one.boxes] == [(1, 2, 11, 10, 1)]
    assert [b.label for b in two.boxes] == [2, 0]
    assert (two.labels, two.split) == ((0, 2), None)


def test_crowds_are_ignored_and_images_without_boxes_are_background(tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "raw")
    data["annotations"][0]["iscrowd"] = 1
    data["annotations"] = [entry for entry in data["annotations"] if entry["image_id"] != 1]
    found = rewrite(tmp_path / "raw", data)
    assert (found.samples[0].labels, found.samples[0].boxes[0].ignored) == ((), True)
    assert (found.samples[1].labels, found.samples[1].boxes) == ((), ())
    assert found.warnings == ["1 images have no box: they are kept as background"]


def test_splits_are_told_by_the_names_of_files_and_folders(tmp_path: Path) -> None:
    raw = tmp_path / "roboflow"
    for part, (name, start) in enumerate({"train": 0, "valid": 4, "test": 8}.items()):
        (raw / name).mkdir(parents=True)
        names = [f"{start + i}.png" for i in range(4)]
        for index, file in enumerate(names):
            (raw / name / file).write_bytes(picture(10 * part + index))
        boxes: dict[str, Any] = {file: [(0, [1, 1, 5, 5])] for file in names}
        (raw / name / "_annotations.coco.json").write_text(json.dumps(coco(boxes)))
    assert detect(raw) == "coco"
    found = look(raw)
    assert [(s.name, s.split) for s in found.samples[3:5]] == [("test/11.png", "test"), ("train/0.png", "train")]
    assert {s.split for s in found.samples} == {"train", "val", "test"}
    assert found.classes == ["apple"]
    assert found.warnings == ["classes without a good box, left out: berry, cherry"]
    shutil.rmtree(raw / "test")
    found = look(raw)
    assert {s.name.split("/")[0]: s.split for s in found.samples} == {"train": "trainval", "valid": "test"}
    assert "its val serves as test" in found.warnings[0]
    shutil.rmtree(raw / "valid")
    assert {s.split for s in look(raw).samples} == {None}


def test_the_layout_of_coco_itself(tmp_path: Path) -> None:
    raw = tmp_path / "coco"
    (raw / "annotations").mkdir(parents=True)
    for part, name in enumerate(("train2017", "val2017", "test2017")):
        (raw / name).mkdir()
        (raw / name / "1.png").write_bytes(picture(part))
        data = coco({"1.png": [(part, [1, 1, 5, 5])]})
        (raw / "annotations" / f"instances_{name}.json").write_text(json.dumps(data))
    (raw / "annotations" / "captions_val2017.json").write_text("{}")
    found = look(raw)
    assert {s.name: s.split for s in found.samples} == {
        "train2017/1.png": "train", "val2017/1.png": "val", "test2017/1.png": "test"
    }  # fmt: skip
    assert "captions_val2017.json" in found.warnings[0]


def test_entries_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    data = coco_folder(raw)
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture(99))
    (raw / "link.png").symlink_to(secret)
    (raw / "07.png").write_bytes(b"no image")
    (raw / "more.png").write_bytes(picture(98))
    names = ["../secret.png", str(secret), "images/../../secret.png", "C:\\x.png", "nowhere.png", "link.png", "00.png"]
    data["images"] += [{"id": 50 + i, "file_name": name} for i, name in enumerate(names)]
    data["images"] += [{"id": 0, "file_name": "more.png"}, {"file_name": "more.png"}, 7]
    data["images"][3]["width"] = 64
    data["images"][4]["width"] = "wide"
    box = {"bbox": [1, 1, 3, 3], "category_id": 0, "image_id": 0}
    data["annotations"] += [{**box, "image_id": 777}, {**box, "category_id": 9}, {**box, "bbox": [1, 1, "3", 3]}, None]
    found = rewrite(raw, data)
    bad = reasons(found)
    for count in (13, 14, 15, 16):
        assert "not a path below the folder" in bad[f"annotations.json#images[{count}]"]
    assert bad["annotations.json#images[17]"] == "no image nowhere.png next to it, in the folder or in images/"
    assert bad["link.png"] == "symbolic link to outside the folder"
    assert "00.png has an entry in annotations.json already" in bad["annotations.json#images[19]"]
    assert "is that of another image" in bad["annotations.json#images[20]"]
    assert bad["annotations.json#images[21]"] == bad["annotations.json#images[22]"] == "needs an id and a file_name"
    assert bad["annotations.json#annotations[19]"] == "no image has the id 777"
    assert "the id None" in bad["annotations.json#annotations[22]"]
    assert bad["00.png#2"] == "no category has the id 9"
    assert bad["00.png#3"] == "'3' is not a number"
    assert bad["03.png"] == "annotated as 64 x 24, but it is 32 x 24: the boxes do not fit"
    assert bad["04.png"] == "its width or height: 'wide' is not a number"
    assert "not an image" in bad["07.png"]
    assert bad["more.png"] == "no COCO file names it: it is not annotated"
    assert len(bad) == 18
    assert len(found.samples) == 9
    assert len(found.samples[0].boxes) == 1


BROKEN = [
    ("[]", "not a COCO file: it must be an object"),
    ("{", "not readable as JSON"),
    ('{"images": [], "categories": []}', "it has no list 'annotations'"),
    ("[" * 100_000, "not readable as JSON"),
    (coco({}), "its list of images is empty"),
    (coco({"x.png": []}), "names no image that exists and is good; the first problem: annotations.json#images"),
    (coco({"00.png": []}), "no good box in 1 good images"),
    (coco({"00.png": []}, categories=[{"id": 1}]), "each category needs an id and a name"),
    (coco({"00.png": []}, categories=[{"id": 1, "name": "a"}] * 2), "two categories have the id 1"),
    (coco({"00.png": []}, categories=[{"id": i, "name": "a"} for i in (1, 2)]), "two categories are called 'a'"),
]


@pytest.mark.parametrize(("data", "message"), BROKEN)
def test_a_file_that_is_no_coco_is_one_clear_line(tmp_path: Path, data: Any, message: str) -> None:
    coco_folder(tmp_path / "raw")
    with pytest.raises(InputError) as caught:
        rewrite(tmp_path / "raw", data)
    assert message in str(caught.value)
    assert "annotations.json" in str(caught.value) or "no good box" in message
    assert "\n" not in str(caught.value)


def test_a_folder_without_json(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(InputError, match="no JSON file in it"):
        look(tmp_path / "raw")
