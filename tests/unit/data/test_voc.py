"""Pascal VOC folders: the boxes, the lists, and malicious XML."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.data.importers import detect
from assay.data.importers.voc import Source, scan
from assay.data.samples import Scan
from assay.errors import InputError
from tests.support.bad_images import picture


def look(path: Path) -> Scan:
    return scan(Source(path=str(path), sha256=""), path.parent, lambda *_: None)


def thing(name: str = "cat", box: tuple[object, ...] = (3, 4, 10, 12), more: str = "") -> str:
    keys = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    inner = "".join(f"<{key}>{value}</{key}>" for key, value in keys)
    return f"<object><name>{name}</name>{more}<bndbox>{inner}</bndbox></object>"


def xml(*objects: str, size: tuple[int, int] = (32, 24), head: str = "", filename: str = "") -> str:
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"{head}<annotation><filename>{filename}</filename>{sides}{''.join(objects)}</annotation>"


def make(folder: Path, count: int = 10) -> Path:
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        (folder / "JPEGImages" / f"{index}.png").write_bytes(picture(index))
        (folder / "Annotations" / f"{index}.xml").write_text(xml(thing("cat" if index % 2 else "dog")))
    return folder


def lists(folder: Path, **names: str) -> None:
    for name, ids in names.items():
        (folder / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(ids.split()) + "\n")


def reasons(found: Scan) -> dict[str, str]:
    return {item["file"]: item["reason"] for item in found.rejected}


def test_boxes_and_classes(tmp_path: Path) -> None:
    raw = make(tmp_path / "raw")
    hard = thing("ant", (0, 1, 33, 24), "<difficult>1</difficult><part><name>leg</name></part>")
    (raw / "Annotations" / "2.xml").write_text(xml(thing(), hard))
    (raw / "Annotations" / "3.xml").write_text(xml(size=(0, 0)))
    assert detect(raw) == "voc"
    found = look(raw)
    assert (found.annotation, found.classes, found.rejected) == ("boxes", ["ant", "cat", "dog"], [])
    first, last = found.samples[2].boxes
    assert (first.x1, first.y1, first.x2, first.y2, first.ignored) == (2, 3, 10, 12, False)
    assert (last.x1, last.y1, last.x2, last.y2, last.ignored) == (0, 0, 32, 24, True)
    assert found.samples[2].labels == (1,)
    assert found.converted == [{"file": "JPEGImages/2.png", "change": "1 of 2 boxes clipped to the image"}]
    assert found.warnings == ["1 images have no box: they are kept as background"]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        ({}, [None] * 10),
        ({"train": "0 1 2 3"}, [None] * 10),
        (
            {"trainval": "0 1 2 3 4 5 6 7", "test": "8 9", "train": "0 1", "val": "7"},
            ["trainval"] * 8 + ["test"] * 2,
        ),
        ({"train": "0 1 2 3 4 5", "val": "6 7", "test": "8 9"}, ["train"] * 6 + ["val"] * 2 + ["test"] * 2),
        ({"train": "0 1 2 3 4 5 6", "val": "7 8 9"}, ["trainval"] * 7 + ["test"] * 3),
    ],
)
def test_the_lists_are_the_splits(tmp_path: Path, names: dict[str, str], splits: list[str | None]) -> None:
    raw = make(tmp_path / "raw")
    lists(raw, **names)
    found = look(raw)
    assert [s.split for s in found.samples] == splits
    assert found.rejected == []


def test_lists_that_do_not_match_are_named(tmp_path: Path) -> None:
    raw = make(tmp_path / "raw")
    lists(raw, trainval="0 1 2 3 4 5 6 nope", test="6 7 8")
    found = look(raw)
    assert reasons(found) == {
        "ImageSets/Main/trainval.txt#8": "names nope, which has no annotation",
        "Annotations/9.xml": "is in no list of ImageSets/Main/",
    }
    assert found.samples[6].split == "test"
    assert "1 images are in two lists of ImageSets/Main/, such as 6" in found.warnings[0]


LAUGHS = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'
FILE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (xml(thing("&b;"), head=LAUGHS).encode(), "has a DTD or entities"),
        (xml(thing("&a;"), head=FILE).encode(), "has a DTD or entities"),
        (xml(head="<!DOCTYPE annotation>").encode("utf-16"), "has a DTD or entities"),
        (b"", "not readable as XML: no element found"),
        (b"<annotation><object></annotation>", "not readable as XML: mismatched tag"),
        (b'<?xml version="1.0" encoding="klingon"?><annotation/>', "not readable as XML"),
        (xml(thing("&b;")).encode(), "not readable as XML: undefined entity"),
        (b"\xff\xfe\x00", "not readable as XML"),
        (b"<svg/>", "not a VOC annotation"),
        (b"<annotation>" + b" " * 2**22, "larger than 4 MiB"),
        (xml(thing(), size=(64, 48)).encode(), "annotated as 64 x 48, but it is 32 x 24"),
        (b"<annotation><size><width>x</width></size></annotation>", "'x' is not a number"),
        (b"<a>" * 100_000, "not readable as XML"),
    ],
)
def test_an_annotation_that_cannot_be_used_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    raw = make(tmp_path / "raw")
    (raw / "Annotations" / "4.xml").write_bytes(content)
    found = look(raw)
    assert len(found.samples) == 9
    bad = reasons(found)
    named = bad.get("Annotations/4.xml") or bad["JPEGImages/4.png"]
    assert reason in named
    assert "\n" not in named


def test_objects_images_and_annotations_that_do_not_fit_are_named(tmp_path: Path) -> None:
    raw = make(tmp_path / "raw")
    objects = (thing(box=(5, 5, 4, 4)), thing(""), "<object><name>cat</name></object>", thing(box=("a", 1, 2, 3)))
    (raw / "Annotations" / "1.xml").write_text(xml(*objects, thing()))
    (raw / "Annotations" / "lost.xml").write_text(xml(thing(), filename="../../secret.png"))
    (raw / "Annotations" / "renamed.xml").write_text(xml(thing(), filename="real name.png"))
    (raw / "JPEGImages" / "real name.png").write_bytes(picture(50))
    (raw / "JPEGImages" / "free.png").write_bytes(picture(51))
    (raw / "JPEGImages" / "5.png").write_bytes(b"broken")
    found = look(raw)
    bad = reasons(found)
    assert bad.pop("JPEGImages/1.png#1").startswith("the box (4, 4, 4, 4) has no area")
    assert bad == {
        "JPEGImages/1.png#2": "an object without a name",
        "JPEGImages/1.png#3": "an object without bndbox/xmin",
        "JPEGImages/1.png#4": "'a' is not a number",
        "Annotations/lost.xml": "no image JPEGImages/lost.* for it",
        "Annotations/5.xml": f"its image JPEGImages/5.png is rejected: {bad['JPEGImages/5.png']}",
        "JPEGImages/5.png": bad["JPEGImages/5.png"],
        "JPEGImages/free.png": "no annotation in Annotations/ names it",
    }
    assert "JPEGImages/real name.png" in {s.name for s in found.samples}


def test_folders_that_are_no_voc(tmp_path: Path) -> None:
    (tmp_path / "raw" / "Annotations").mkdir(parents=True)
    with pytest.raises(InputError, match="no XML file in Annotations/"):
        look(tmp_path / "raw")
    raw = make(tmp_path / "empty")
    for file in (raw / "Annotations").iterdir():
        file.write_text(xml())
    with pytest.raises(InputError, match="no good box in 10 good images"):
        look(raw)
