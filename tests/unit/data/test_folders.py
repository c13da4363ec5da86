"""Multi-label tables, style folders, and which kind a folder is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from assay.config.plugin import load_source
from assay.config.plugin import source_kinds as kinds
from assay.data.importers import detect, folder_kinds, labels_csv
from assay.data.importers import style_folder as style
from assay.data.raw import inner_path, settled_splits
from assay.data.samples import Scan
from assay.errors import InputError
from tests.support.bad_images import coco_folder, encoded, make_folder, picture, style_folder


def labelled(path: Path, table: str | bytes, images: int = 6) -> Path:
    path.mkdir(exist_ok=True)
    for index in range(images):
        (path / f"{index}.png").write_bytes(picture(index))
    (path / "labels.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    return path


def look_csv(path: Path) -> Scan:
    return labels_csv.scan(labels_csv.Source(path=str(path), sha256=""), path.parent, lambda *_: None)


def look_style(path: Path) -> Scan:
    return style.scan(style.Source(path=str(path), sha256=""), path.parent, lambda *_: None)


def reasons(found: Scan) -> dict[str, str]:
    return {item["file"]: item["reason"] for item in found.rejected}


def test_a_table_of_labels(tmp_path: Path) -> None:
    rows = '\ufefffile,labels\r\n0.png,sea; sky\r\n1.png,\r\n./2.png,sky;sky\r\n3.png,sea\r\n4.png,"a,b;sky"\r\n'
    found = look_csv(labelled(tmp_path / "raw", f"{rows}5.png,sea\r\n"))
    assert (found.annotation, found.classes, found.rejected) == ("labels", ["a,b", "sea", "sky"], [])
    assert [s.labels for s in found.samples] == [(1, 2), (), (2,), (1,), (0, 2), (1,)]
    assert found.warnings == ["1 images have no label: they are kept as negatives"]


def test_rows_and_files_that_do_not_match_are_named(tmp_path: Path) -> None:
    table = "labels,file\na,0.png\nb,0.png\na,nowhere.png\na,../x.png\nb,bad.png\na,1.png\nb,copy.png\n\na,2.png\n"
    raw = labelled(tmp_path / "raw", table)
    (raw / "bad.png").write_bytes(b"x")
    (raw / "copy.png").write_bytes(picture(1))
    found = look_csv(raw)
    bad = reasons(found)
    assert "not an image" in bad.pop("bad.png")
    assert bad == {
        "labels.csv#3": "0.png has a row already",
        "labels.csv#4": "no image nowhere.png",
        "labels.csv#5": "file '../x.png' is not a path below the folder",
        "1.png": "the same image as copy.png, which has other labels",
        "copy.png": "the same image as 1.png, which has other labels",
        "3.png": "has no row in labels.csv",
        "4.png": "has no row in labels.csv",
        "5.png": "has no row in labels.csv",
    }
    assert [s.name for s in found.samples] == ["0.png", "2.png"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"", "no column 'file'"),
        (b"file;labels\n", "no column 'file'"),
        (b"file,label\n", "no column 'labels'"),
        (b"file,labels\n0.png,a,b\n", "line 2 does not have 2 columns"),
        (b"file,labels\n0.png\n", "line 2 does not have 2 columns"),
        (b'file,labels\n0.png,"a\n', "line 2"),
        (b"file,labels\n\xff\n", "not readable as UTF-8"),
        (b"file,labels\n0.png,;\n", "gives no label to any of 1 good images"),
    ],
)
def test_a_table_that_is_none_is_one_clear_line(tmp_path: Path, table: bytes, message: str) -> None:
    raw = labelled(tmp_path / "raw", table)
    with pytest.raises(InputError, match=r"labels\.csv: ") as caught:
        look_csv(raw)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_table(tmp_path: Path) -> None:
    raw = labelled(tmp_path / "raw", "")
    (raw / "labels.csv").unlink()
    with pytest.raises(InputError, match=r"labels\.csv: no such file"):
        look_csv(raw)


def test_a_style_folder(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    style_folder(raw)
    (raw / "content" / "flat.png").write_bytes(encoded(Image.new("RGB", (9, 9), "red"), "PNG"))
    (raw / "style" / "same.png").write_bytes(picture(0))
    (raw / "stray.png").write_bytes(picture(9))
    found = look_style(raw)
    assert (found.annotation, found.classes) == ("style", ["content", "style"])
    assert [(s.name, s.labels, s.split) for s in found.samples[2:4]] == [
        ("content/3.png", (0,), None),
        ("style/0.png", (1,), "train"),
    ]
    bad = reasons(found)
    assert "of one colour" in bad["content/flat.png"]
    assert "outside content/ and style/" in bad["stray.png"]
    assert bad["style/same.png"] == "the same image as content/0.png, which is content here and style there"
    assert bad.keys() == {"content/flat.png", "stray.png", "style/same.png", "content/0.png"}


def test_style_folders_that_lack_something(tmp_path: Path) -> None:
    style_folder(tmp_path / "few", contents=2)
    with pytest.raises(InputError, match=r"content/ has 2 distinct good images \(0 rejected\): at least 3 needed"):
        look_style(tmp_path / "few")
    style_folder(tmp_path / "bare", styles=0)
    with pytest.raises(InputError, match="style/ has 0 distinct good images"):
        look_style(tmp_path / "bare")
    (tmp_path / "half" / "style").mkdir(parents=True)
    with pytest.raises(InputError, match="no folder content/ in it"):
        look_style(tmp_path / "half")


def test_the_kind_of_a_folder_shows_in_its_layout(tmp_path: Path) -> None:
    make_folder(tmp_path / "classes", 24, 0)
    (tmp_path / "classes" / "about.json").write_text('{"made": "by hand"}')
    style_folder(tmp_path / "style")
    coco_folder(tmp_path / "coco")
    labelled(tmp_path / "labels", "file,labels\n")
    found = [detect(tmp_path / name) for name in ("classes", "style", "coco", "labels")]
    assert found == ["image_folder", "style_folder", "coco", "labels_csv"]
    labelled(tmp_path / "coco", "file,labels\n")
    with pytest.raises(InputError, match="looks like coco and like labels_csv: choose one with --kind"):
        detect(tmp_path / "coco")


def test_kinds_are_found_by_their_modules() -> None:
    assert set(folder_kinds()) == {kind for kind in kinds() if "path" in load_source(kind).model_fields}
    assert {"coco", "image_folder", "labels_csv", "style_folder", "voc"} <= set(folder_kinds())


@given(st.text(st.sampled_from("a./\\:\0"), max_size=12))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    inner = inner_path(name)
    if inner is not None:
        folder = Path("/base/folder")
        assert (folder / inner).resolve().is_relative_to(folder)
        assert (folder / inner).resolve() != folder


@pytest.mark.parametrize(
    ("present", "meaning"),
    [
        (set(), {}),
        ({"train"}, {"train": None}),
        ({"val", "test"}, {"val": None, "test": None}),
        ({"train", "val"}, {"train": "trainval", "val": "test"}),
        ({"train", "test"}, {"train": "trainval", "test": "test"}),
        ({"train", "val", "test"}, {"train": "train", "val": "val", "test": "test"}),
    ],
)
def test_splits_that_a_source_names(present: set[str], meaning: dict[str, str | None]) -> None:
    found, _ = settled_splits(present)
    assert {name: found[name] for name in present} == meaning
