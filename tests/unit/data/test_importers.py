"""A folder of anything becomes exactly its good images; every other file is reported with a reason."""

from __future__ import annotations

import os
import socket
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assay.data.images import inspect
from assay.data.importers import digits
from assay.data.importers.image_folder import Source, scan
from assay.data.raw import File, folder_digest, reject_contradictions, rejected_lines
from assay.data.samples import Scan, SourceChanged
from assay.errors import InputError
from tests.support.bad_images import CLASSES, encoded, make_folder, noise

RNG = np.random.default_rng(5)


def look(path: Path, sha256: str = "") -> Scan:
    return scan(Source(path=str(path), sha256=sha256), path.parent, lambda *_: None)


def reasons(found: Scan) -> dict[str, str]:
    return {item["file"]: item["reason"] for item in found.rejected}


def test_bad_files_are_named_and_odd_ones_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    bad = make_folder(folder, 48, 20)
    found = look(folder)
    assert sorted(reasons(found)) == bad
    assert len(found.samples) == 48
    assert found.classes == list(CLASSES)
    assert [sample.name for sample in found.samples] == sorted(sample.name for sample in found.samples)
    changes = Counter(item["change"] for item in found.converted)
    assert changes["PNG content under a .jpg name"] == 6
    assert changes["CMYK to RGB"] == 6
    assert found.digest == folder_digest(folder)


def test_what_is_no_regular_file_is_rejected_without_waiting(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    make_folder(folder, 24, 0)
    outside = tmp_path / "outside.png"
    outside.write_bytes(encoded(Image.fromarray(noise(RNG)), "PNG"))
    apple = folder / "apple"
    os.mkfifo(apple / "fifo.png")
    (apple / "out.png").symlink_to(outside)
    (apple / "loop.png").symlink_to(apple / "loop.png")
    (apple / "folder").symlink_to(folder / "berry")
    (apple / "inside.png").symlink_to(apple / "good-0000.png")
    (folder / "stray.png").write_bytes(outside.read_bytes())
    (folder / ".cache").mkdir()
    (folder / ".cache" / "thumb.png").write_bytes(outside.read_bytes())
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.path.relpath(apple / "socket.png"))  # a socket's address is at most 108 bytes
    found = look(folder)
    server.close()
    assert reasons(found).keys() == {
        "apple/fifo.png", "apple/out.png", "apple/loop.png", "apple/folder", "apple/socket.png",
        "stray.png", ".cache/thumb.png",
    }  # fmt: skip
    assert "outside" in reasons(found)["apple/out.png"]
    assert "no class" in reasons(found)["stray.png"]
    assert "apple/inside.png" in {sample.name for sample in found.samples}


def test_names_that_are_no_text_and_deep_folders(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    make_folder(folder, 24, 0)
    deep = folder / "apple" / "a" / "b"
    deep.mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(deep) + b"/\xff.png")).write_bytes(encoded(Image.fromarray(noise(RNG)), "PNG"))
    assert "apple/a/b/\\xff.png" in {sample.name for sample in look(folder).samples}


def test_the_same_image_under_two_classes_is_rejected_in_both(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    make_folder(folder, 24, 0)
    content = (folder / "apple" / "good-0000.png").read_bytes()
    (folder / "berry" / "same.png").write_bytes(content)
    found = reasons(look(folder))
    assert found.keys() == {"apple/good-0000.png", "berry/same.png"}
    assert "berry/same.png" in found["apple/good-0000.png"]


def test_the_same_pixels_under_two_classes_are_rejected_in_both(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    make_folder(folder, 24, 0)
    with Image.open(folder / "apple" / "good-0000.png") as image:
        image.save(folder / "berry" / "same.bmp")
        image.save(folder / "apple" / "too.webp", lossless=True)
    found = reasons(look(folder))
    assert found == {
        "apple/good-0000.png": "the same image as berry/same.bmp, which is of another class",
        "apple/too.webp": "the same image as berry/same.bmp, which is of another class",
        "berry/same.bmp": "the same image as apple/good-0000.png, which is of another class",
    }


@pytest.mark.parametrize("classes", [1, 2])
def test_copies_are_compared_in_linear_time(classes: int) -> None:
    """16,000 copies of one image took 47 s, when each was compared with all others."""
    facts = inspect(encoded(Image.fromarray(noise(RNG)), "PNG"))
    files = [File(f"{index % classes}/{index}", Path("unused"), "", facts) for index in range(5000)]
    looks = Counter[str]()

    def annotated(file: File) -> str:
        looks[file.relative] += 1
        return file.relative.partition("/")[0]

    rejected = rejected_lines(reject_contradictions(files, annotated, "is of another class"))
    assert len(rejected) == (0 if classes == 1 else 5000)
    assert looks.total() <= 5 * len(files)


def test_folders_that_are_no_classification(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        look(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="no class folders"):
        look(empty)
    make_folder(tmp_path / "one", 24, 0)
    for name in CLASSES[1:]:
        for file in (tmp_path / "one" / name).iterdir():
            file.unlink()
        (tmp_path / "one" / name).rmdir()
    with pytest.raises(InputError, match="only one class"):
        look(tmp_path / "one")
    make_folder(tmp_path / "bare", 24, 0)
    (tmp_path / "bare" / "void").mkdir()
    (tmp_path / "bare" / "void" / "bad.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"'void' has no good image \(1 rejected.*empty file"):
        look(tmp_path / "bare")


def test_a_changed_folder_is_noticed_before_and_while_it_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    make_folder(folder, 24, 0)
    found = look(folder)
    assert look(folder, found.digest).digest == found.digest
    first = folder / found.samples[0].name
    first.write_bytes(first.read_bytes() + b"\0")
    with pytest.raises(SourceChanged):
        look(folder, found.digest)
    with pytest.raises(InputError, match="changed while"):
        found.samples[0].read()


def test_digits() -> None:
    from assay.data.images import decode

    found = digits.scan(digits.Source(), Path(), lambda *_: None)
    assert (len(found.samples), found.classes) == (1797, [str(i) for i in range(10)])
    pixels = decode(found.samples[0].read(), 1)
    assert pixels.shape == (1, 8, 8)
    assert pixels[0, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]  # 0 0 5 13 9 1 0 0 of 16
