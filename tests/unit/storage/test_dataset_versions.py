"""A version is opened by its hash, from wherever it is, and stays readable whatever happens to `data/NAME`."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from assay.data import version as version_module
from assay.data.version import folder_hash, listing_hash
from assay.errors import InputError
from assay.state import DATASETS, HASHES, PACKAGE, STATE
from assay.storage import dataset_cache
from tests.support.node import FILES, Node, content, ended, md5

OTHER = FILES | {"train-00000.arrow": b"T" * 900}


@pytest.fixture
def here(node: Node) -> Node:
    """A project with its data, in place of a job's package; its remote is empty."""
    (node.root / PACKAGE).unlink()
    write(node.root / "data" / "pets", FILES)
    return node


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read to hash them."""
    files: list[Path] = []
    real = version_module._md5

    def noted(path: Path) -> str:
        files.append(path)
        return real(path)

    monkeypatch.setattr(version_module, "_md5", noted)
    return files


def write(folder: Path, files: dict[str, bytes]) -> str:
    """Replace a folder, as `dvc checkout` and `assay data add` do; its version."""
    shutil.rmtree(folder, ignore_errors=True)
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder_hash(folder, None)[0]


def cached(folder: Path, files: dict[str, bytes]) -> str:
    """Put a version into a DVC cache; its hash."""
    md5s = {path: md5(data) for path, data in files.items()}
    version = listing_hash(md5s)
    text = json.dumps([{"md5": md5s[path], "relpath": path} for path in sorted(md5s)])
    for name, data in [(md5s[path], files[path]) for path in files] + [(version, text.encode())]:
        at = folder / "files" / "md5" / name[:2] / name[2:]
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_bytes(data)
    return version


def test_a_version_is_linked_not_copied_and_large_files_are_read_once(
    here: Node, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version_module, "READ_ANEW_BYTES", -1)
    data = here.root / "data" / "pets"
    version = folder_hash(data, here.root / STATE / HASHES)[0]
    read.clear()
    folder = here.fetch(version)
    assert folder == here.root / STATE / DATASETS / version
    assert read == []
    assert all((folder / path).samefile(data / path) for path in FILES)


def test_it_stays_whatever_happens_to_the_data(here: Node) -> None:
    data = here.root / "data" / "pets"
    version = folder_hash(data, None)[0]
    folder = here.fetch(version)
    other = write(data, OTHER)
    assert content(folder) == FILES
    child = here.child(version)  # such as a worker that starts only now
    out, _ = child.communicate()
    assert f"folder {folder}" in out
    assert content(here.fetch(other)) == OTHER
    assert content(folder) == FILES  # used, though not recorded


def test_what_is_neither_used_nor_recorded_goes(here: Node) -> None:
    data = here.root / "data" / "pets"
    old = folder_hash(data, None)[0]
    user = here.child(old)
    assert user.stdout is not None
    while not user.stdout.readline().startswith("folder"):
        pass
    new = write(data, OTHER)
    here.fetch(new)
    store = here.root / STATE / DATASETS
    assert {path.name for path in store.glob("*.dir")} == {old, new}
    user.send_signal(signal.SIGKILL)
    user.communicate()
    (here.root / "dvc.lock").write_text(f"stages:\n  data@pets:\n    outs:\n    - {{path: data/pets, md5: {old}}}\n")
    here.fetch(new)
    assert (store / old).is_dir()
    (here.root / "dvc.lock").write_text(f"stages:\n  data@pets:\n    outs:\n    - {{path: data/pets, md5: {new}}}\n")
    here.fetch(new)
    assert {path.name for path in store.iterdir() if old in path.name} == set()


@pytest.mark.parametrize("configured", [False, True])
def test_an_older_version_comes_from_the_cache_of_dvc(here: Node, configured: bool, tmp_path: Path) -> None:
    cache = tmp_path / "elsewhere" if configured else here.root / ".dvc" / "cache"
    if configured:
        (here.root / ".dvc" / "config.local").write_text("[cache]\ndir = ../../elsewhere\n")
    version = cached(cache, OTHER)
    assert content(here.fetch(version)) == OTHER
    ended()
    damaged = cache / "files" / "md5" / md5(b"T" * 900)[:2] / md5(b"T" * 900)[2:]
    damaged.write_bytes(b"X" * 900)  # also under the link
    data = folder_hash(here.root / "data" / "pets", None)[0]
    here.configure("../relative")
    (here.root / PACKAGE).unlink()
    with pytest.raises(InputError) as caught:
        here.fetch(version)
    assert version in str(caught.value)
    assert data in str(caught.value)
    assert "dvc repro data@pets" in str(caught.value)


def test_what_is_missing_here_is_fetched_and_nothing_else(here: Node) -> None:
    version = here.publish(OTHER)
    for path in FILES.keys() - {"train-00000.arrow"}:
        here.object(md5(FILES[path])).unlink()  # they are in data/ as well
    assert content(here.fetch(version)) == OTHER


def test_damage_under_a_link_is_found_at_the_next_opening(here: Node) -> None:
    data = here.root / "data" / "pets"
    version = folder_hash(data, None)[0]
    folder = here.fetch(version)
    with (data / "train-00000.arrow").open("r+b") as file:
        file.write(b"?")
    assert (folder / "train-00000.arrow").read_bytes()[:1] == b"?"
    with pytest.raises(
        Exception, match=rf"version {version} is not on this machine \(data/pets is [0-9a-f]{{32}}\.dir"
    ):
        here.fetch(version)
    cached(here.root / ".dvc" / "cache", FILES)
    assert content(here.fetch(version)) == FILES


def test_where_there_are_no_links_it_is_a_copy(here: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(dataset_cache.os, "link", no_link)
    data = here.root / "data" / "pets"
    folder = here.fetch(folder_hash(data, None)[0])
    assert content(folder) == FILES
    assert not (folder / "dataset.json").samefile(data / "dataset.json")


def swap(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    """Do something after the data have been compared and before they are linked."""
    real = dataset_cache.link

    def swapped(source: Path, target: Path) -> None:
        if work.__name__ not in done:
            done.append(work.__name__)
            work()
        real(source, target)

    done: list[str] = []
    monkeypatch.setattr("assay.storage.dataset_versions.link", swapped)


def test_a_swap_between_comparing_and_linking_is_noticed(here: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    data = here.root / "data" / "pets"
    version = folder_hash(data, None)[0]
    cached(here.root / ".dvc" / "cache", FILES)

    def replace() -> None:
        write(data, OTHER)

    swap(monkeypatch, replace)
    assert content(here.fetch(version)) == FILES
