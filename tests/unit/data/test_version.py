"""Our hash of a folder is DVC's, and caching hashes never hides a change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from assay.data import version
from assay.data.version import Hashes, folder_hash, recorded_hash, recorded_versions
from assay.errors import InputError


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the files of these tests count as large."""
    monkeypatch.setattr(version, "READ_ANEW_BYTES", -1)


def fill(folder: Path) -> None:
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "b.bin").write_bytes(bytes(range(256)) * 5000)
    (folder / "a.txt").write_bytes(b"lines\r\nof text\r\n")
    (folder / "sub" / "deep" / "é ü.txt").write_bytes(b"")
    (folder / "sub-b").write_bytes(b"1")
    (folder / "sub" / "c").write_bytes(b"2")


def test_the_hash_is_that_of_dvc(tmp_path: Path) -> None:
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.fs.local import LocalFileSystem

    folder = tmp_path / "data"
    fill(folder)
    files = LocalFileSystem()
    store = HashFileDB(files, str(tmp_path / "cache"))
    _, _, tree = build(store, str(folder), files, "md5")
    found, md5s = folder_hash(folder, None)
    assert found == tree.hash_info.value
    assert set(md5s) == {"a.txt", "b.bin", "sub-b", "sub/c", "sub/deep/é ü.txt"}


def test_other_content_of_the_same_size_and_time_is_found(tmp_path: Path) -> None:
    """As a failing disk leaves it, or a program that sets times."""
    folder, cache = tmp_path / "data", tmp_path / "hashes.json"
    fill(folder)
    first, stat = folder_hash(folder, cache), (folder / "b.bin").stat()
    with (folder / "b.bin").open("r+b") as file:
        file.write(b"\x01")
    os.utime(folder / "b.bin", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert folder_hash(folder, cache)[0] != first[0]


@pytest.mark.usefixtures("trusted")
def test_remembered_hashes_save_reading_and_notice_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cache = tmp_path / "data", tmp_path / ".assay" / "hashes.json"
    fill(folder)
    first = folder_hash(folder, cache)
    read: list[Path] = []
    real = version._md5
    monkeypatch.setattr(version, "_md5", lambda path: read.append(path) or real(path))
    assert folder_hash(folder, cache) == first
    assert read == []
    stat = (folder / "b.bin").stat()
    (folder / "b.bin").write_bytes(bytes(256 * 5000))
    os.utime(folder / "b.bin", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert folder_hash(folder, cache)[0] != first[0]
    assert read == [folder / "b.bin"]
    cache.write_text("{damaged")
    assert folder_hash(folder, cache) == folder_hash(folder, None)


@pytest.mark.usefixtures("trusted")
def test_what_was_just_verified_need_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cache = tmp_path / "data", tmp_path / "hashes.json"
    fill(folder)
    expected = folder_hash(folder, None)
    hashes = Hashes(cache)
    for path, md5 in expected[1].items():
        hashes.note(folder / path, md5)
    hashes.save()
    monkeypatch.delattr(version, "_md5")
    assert folder_hash(folder, cache) == expected


@pytest.mark.usefixtures("trusted")
def test_a_link_to_a_verified_file_need_not_be_read_but_another_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, other = tmp_path / "data", tmp_path / "other"
    fill(folder)
    known, hashes = Hashes(tmp_path / "hashes.json"), Hashes(None)
    expected = known.md5(folder / "b.bin")
    other.mkdir()
    os.link(folder / "b.bin", other / "b.bin")
    hashes.adopt(other / "b.bin", folder / "b.bin", known)
    read: list[Path] = []
    real = version._md5
    monkeypatch.setattr(version, "_md5", lambda path: read.append(path) or real(path))
    assert hashes.md5(other / "b.bin") == expected
    assert read == []
    (other / "a.txt").write_bytes(b"swapped in between")
    known.md5(folder / "a.txt")
    hashes.adopt(other / "a.txt", folder / "a.txt", known)
    assert hashes.md5(other / "a.txt") != known.md5(folder / "a.txt")
    assert other / "a.txt" in read


def test_recorded_hashes(tmp_path: Path) -> None:
    assert recorded_hash(tmp_path, "pets") is None
    (tmp_path / "dvc.lock").write_text("stages:\n  data@pets:\n    outs:\n    - {path: data/pets, md5: 12.dir}\n")
    assert recorded_hash(tmp_path, "pets") == "12.dir"
    assert recorded_hash(tmp_path, "cats") is None
    assert recorded_versions(tmp_path) == set()
    (tmp_path / "dvc.lock").write_text(f"outs:\n- md5: {'a1' * 16}.dir\n- md5: {'b2' * 16}\n")
    assert recorded_versions(tmp_path) == {f"{'a1' * 16}.dir"}
    (tmp_path / "dvc.lock").write_text("<<<<<<< HEAD\n: [")
    with pytest.raises(InputError, match=r"dvc\.lock: not readable"):
        recorded_hash(tmp_path, "pets")
