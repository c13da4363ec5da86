"""`assay data add` in a real git and DVC project: all of it, or nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from assay.config.params import load_params
from assay.data.dataset import CARD, open_dataset
from assay.data.version import folder_hash
from assay.settings import Settings
from assay.storage.dataset_versions import open_version
from assay.storage.dvc_cache import DvcCache
from assay.usecases import add_data as add_module
from tests.support.bad_images import coco_folder, make_folder, style_folder
from tests.support.program import call

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def run(project: Path, *command: str, code: int = 0, apart: bool = False) -> subprocess.CompletedProcess[str]:
    """A program; `assay` in this process, or `apart` as the real one."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "200"}
    if command[0] == "assay" and not apart:
        done = call(command[1:], project, environment)
    else:
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def add(project: Path, *arguments: str, code: int = 0, apart: bool = False) -> dict[str, object]:
    done = run(project, "assay", "data", "add", *arguments, "--json", code=code, apart=apart)
    result: dict[str, object] = json.loads(done.stdout) if code == 0 else {"error": done.stderr}
    return result


def state(project: Path) -> dict[str, bytes]:
    """Everything that `add` may touch, byte by byte."""
    files = [project / "params.yaml", project / "dvc.lock", *sorted((project / "data").rglob("*"))]
    return {str(path.relative_to(project)): path.read_bytes() for path in files if path.is_file()}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    path = tmp_path / "project"
    (path / ".dvc").mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
        shutil.copyfile(REPOSITORY / name, path / name)
    (path / "platform").symlink_to(REPOSITORY / "platform")
    run(path, "git", "init", "-q", ".")
    return path


def test_a_folder_becomes_a_version_and_an_experiment(project: Path) -> None:
    before = (project / "params.yaml").read_text()
    bad = make_folder(project / "raw", 72, 10)
    result = add(project, "fruit", "raw", apart=True)
    assert result["changed"] is True
    assert result["samples"] == 72
    assert sorted(item["file"] for item in result["rejected"]) == bad  # type: ignore[attr-defined]
    after = (project / "params.yaml").read_text()
    assert set(before.splitlines()) <= set(after.splitlines())
    params = load_params(project / "params.yaml")
    experiment = params.experiment("fruit")
    assert result["experiment"] == "fruit"
    assert (experiment.task.name, experiment.data) == ("classification", "fruit")
    assert experiment.gate.min
    assert "raise it once you know" in after
    assert "up to date" in run(project, "dvc", "status", "data@fruit").stdout
    folder = project / "data" / "fruit"
    assert open_dataset(project, "fruit", folder).hash == result["hash"]
    everything = state(project)
    assert "didn't change" in run(project, "dvc", "repro", "data@fruit").stdout
    again = add(project, "fruit", "raw")
    assert again["changed"] is False
    assert again["hash"] == result["hash"]
    assert state(project) == everything

    # Made anew by DVC itself, the version is the same one.
    run(project, "dvc", "repro", "--force", "data@fruit")
    assert state(project) == everything

    listed = json.loads(run(project, "assay", "data", "list", "--json").stdout)["datasets"]
    assert {"digits": "missing", "fruit": "ready"}.items() <= {row["name"]: row["state"] for row in listed}.items()
    assert [row["rejected"] for row in listed if row["name"] == "fruit"] == [result["rejected"]]
    table = run(project, "assay", "data", "list").stdout
    assert [line.split()[-3] for line in table.splitlines() if line.startswith("fruit")] == ["10"]
    assert json.loads(run(project, "assay", "data", "check", "fruit", "--json").stdout)["ok"] is True

    # New content: the block is updated in place, comments and the experiment stay.
    edited = (project / "params.yaml").read_text().replace("    data: fruit\n", "    data: fruit   # mine\n")
    (project / "params.yaml").write_text(edited)
    make_folder(project / "more", 24, 0, seed=9)
    for file in (project / "more" / "apple").iterdir():
        shutil.copyfile(file, project / "raw" / "apple" / f"new-{file.name}")
    assert "changed since it was added" in run(project, "assay", "data", "prepare", "fruit", code=2).stderr
    newer = add(project, "fruit", "raw")
    assert newer["changed"] is True
    assert newer["hash"] != result["hash"]
    old_lines, new_lines = edited.splitlines(), (project / "params.yaml").read_text().splitlines()
    different = [(a, b) for a, b in zip(old_lines, new_lines, strict=True) if a != b]
    assert len(different) == 1
    assert "sha256" in different[0][1]
    assert "up to date" in run(project, "dvc", "status", "data@fruit").stdout


def test_any_failure_leaves_everything_as_it_was(project: Path) -> None:
    make_folder(project / "raw", 48, 4)
    add(project, "fruit", "raw")
    before = state(project)
    (project / "raw" / "void").mkdir()
    assert "'void' has no good image" in str(add(project, "fruit", "raw", code=2)["error"])
    assert "'void' has no good image" in str(add(project, "other", "raw", code=2, apart=True)["error"])
    (project / "one" / "only").mkdir(parents=True)
    assert "only one class" in str(add(project, "one", "one", code=2)["error"])
    assert "overlaps" in str(add(project, "x", ".", code=2)["error"])
    assert "a name has at most 63 lower-case letters" in str(add(project, "No Name", "raw", code=2)["error"])
    assert "another name" in str(add(project, "digits", "raw", code=2)["error"])
    assert "another name" in str(add(project, "fruit", "raw", "--kind", "coco", code=2)["error"])
    assert "unknown kind of folder 'cocoa'" in str(add(project, "x", "raw", "--kind", "cocoa", code=2)["error"])
    (project / "raw" / "void").rmdir()
    shutil.copyfile(project / "raw" / "apple" / "good-0000.png", project / "raw" / "apple" / "copy.png")
    broken = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text("stages: {}\n")
    assert "so everything was restored: " in str(add(project, "fruit", "raw", code=1)["error"])
    (project / "dvc.yaml").write_text(broken)
    assert state(project) == before
    assert "up to date" in run(project, "dvc", "status", "data@fruit").stdout


@pytest.fixture
def small_cache(project: Path, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Gives DVC's cache a small disk of its own, or another size to it."""
    cache = tmp_path / "cache"
    cache.mkdir()
    run(project, "dvc", "config", "--local", "cache.dir", str(cache))

    def mount(size: str) -> None:
        how = f"remount,size={size}" if os.path.ismount(cache) else f"size={size}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(cache)], capture_output=True)
        if done.returncode != 0:
            pytest.skip("mounting is not permitted here")

    yield mount
    subprocess.run(["umount", str(cache)], capture_output=True)


def test_a_full_disk_is_no_version_and_the_same_command_heals(
    project: Path, small_cache: Callable[[str], None]
) -> None:
    make_folder(project / "raw", 72, 0)
    before = state(project)
    small_cache("64k")
    told = str(add(project, "fruit", "raw", code=1)["error"]).splitlines()[-1]
    assert re.search(r"^error: DVC says that data@fruit is recorded, but its cache lacks .*/cache/files/md5/", told)
    assert told.endswith(
        "so everything was restored: the disk is probably full (0 bytes free): make room, and add it again"
    )
    assert state(project) == before
    small_cache("64m")
    assert add(project, "fruit", "raw")["changed"] is True
    shutil.rmtree(project / "data" / "fruit")
    run(project, "dvc", "checkout", "data@fruit")
    assert open_dataset(project, "fruit", project / "data" / "fruit").card.name == "fruit"


def test_a_full_disk_while_preparing_leaves_nothing_half(project: Path) -> None:
    make_folder(project / "raw", 72, 0)
    add(project, "fruit", "raw")
    data = project / "data"
    shutil.rmtree(data)
    data.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(data)], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        done = run(project, "dvc", "repro", "--force", "data@fruit", code=255)
        assert "failed to run: assay data prepare fruit" in done.stdout + done.stderr
        assert [path for path in data.rglob("*") if path.name != ".gitignore"] == []
    finally:
        subprocess.run(["umount", str(data)], capture_output=True)
    run(project, "dvc", "repro", "--force", "data@fruit")
    assert open_dataset(project, "fruit", data / "fruit").card.name == "fruit"


@pytest.mark.parametrize("lost", ["file", "listing", "half a file"])
def test_a_version_that_the_cache_of_dvc_lacks_is_stored_again(project: Path, lost: str) -> None:
    """So a full disk left it before this was looked at: recorded, and gone with the next version."""
    make_folder(project / "raw", 48, 0)
    version = str(add(project, "fruit", "raw")["hash"])
    folder, cache = project / "data" / "fruit", DvcCache.of(project)
    md5 = folder_hash(folder, None)[1][CARD]
    path = cache.object(version if lost == "listing" else md5)
    content = path.read_bytes()
    path.unlink()
    if lost == "half a file":
        path.write_bytes(content[: len(content) // 2])
        path.chmod(0o444)
    before = state(project)
    result = add(project, "fruit", "raw")
    assert (result["healed"], result["changed"]) == (True, False)
    assert state(project) == before
    assert path.read_bytes() == content
    assert add(project, "fruit", "raw")["healed"] is False


def test_a_version_is_on_the_disk_once(project: Path) -> None:
    """The files of `data/NAME`, of DVC's cache and of the versions in use are the same ones, however they came."""
    make_folder(project / "raw", 48, 0)
    version = str(add(project, "fruit", "raw")["hash"])
    folder, cache = project / "data" / "fruit", DvcCache.of(project)

    def once() -> bool:
        opened = open_version(Settings(project=project), "fruit", version, lambda _: None).folder
        found = folder_hash(folder, None)[1].items()
        return all(
            (folder / path).samefile(cache.object(md5)) and (folder / path).samefile(opened / path)
            for path, md5 in found
        )

    assert once()
    run(project, "dvc", "repro", "--force", "data@fruit")
    shutil.rmtree(project / ".assay" / "datasets")
    assert once()
    shutil.rmtree(folder)
    run(project, "dvc", "checkout", "data@fruit")
    assert once()

    # A packed file is read-only; one that is damaged all the same is named, and made anew.
    card = folder / CARD
    assert not card.stat().st_mode & 0o222
    card.chmod(0o644)
    card.write_bytes(card.read_bytes() + b" ")
    card.chmod(0o444)  # by which DVC would trust it: the damage is in its cache as well
    assert CARD in run(project, "assay", "data", "check", "fruit", code=1).stderr
    run(project, "dvc", "repro", "--force", "data@fruit")
    assert json.loads(run(project, "assay", "data", "check", "fruit", "--json").stdout)["ok"] is True
    assert once()


def check_kind(project: Path, name: str, kind: str, annotation: str) -> dict[str, Any]:
    """Add `raw`, find it recorded, and a starter of the task that has one for such data; add it again, unchanged."""
    done = run(project, "assay", "data", "add", name, "raw", "--json")
    result: dict[str, Any] = json.loads(done.stdout)
    assert f"read as {kind}" in done.stderr
    assert (result["changed"], result["kind"], result["annotation"]) == (True, kind, annotation)
    card = open_dataset(project, name, project / "data" / name).card
    params = load_params(project / "params.yaml")
    block = add_module.first_experiment(name, card)
    assert result["experiment"] == (name if block else None)
    assert (name in params.experiments) == (block is not None)
    assert params.dataset(name).source.model_dump() == {"kind": kind, "path": "raw", "sha256": card.source}
    assert "up to date" in run(project, "dvc", "status", f"data@{name}").stdout
    everything = state(project)
    assert "didn't change" in run(project, "dvc", "repro", f"data@{name}").stdout
    assert add(project, name, "raw")["changed"] is False
    assert state(project) == everything
    run(project, "dvc", "repro", "--force", f"data@{name}")
    assert state(project) == everything
    assert json.loads(run(project, "assay", "data", "check", name, "--json").stdout)["ok"] is True
    return result


def test_boxes_of_a_coco_folder(project: Path) -> None:
    data = coco_folder(project / "raw", 30)
    result = check_kind(project, "fruit", "coco", "boxes")
    assert result["boxes"] == len(data["annotations"]) == 45
    assert "boxes (45)" in run(project, "assay", "data", "list").stdout

    # A box that is drawn anew is a new version; one annotation too bad, and nothing is touched.
    data["annotations"][0]["bbox"] = [0, 0, 20, 50]
    (project / "raw" / "annotations.json").write_text(json.dumps(data))
    newer = add(project, "fruit", "raw")
    assert newer["hash"] != result["hash"]
    assert newer["converted"] == [{"file": "00.png", "change": "1 of 1 boxes clipped to the image"}]
    before = state(project)
    (project / "raw" / "annotations.json").write_text("{")
    assert "not readable as JSON" in str(add(project, "fruit", "raw", code=2)["error"])
    assert state(project) == before


def test_contents_and_styles(project: Path) -> None:
    style_folder(project / "raw", contents=6, styles=2)
    result = check_kind(project, "paintings", "style_folder", "style")
    assert result["splits"] == {"train": 6, "val": 1, "test": 1}
    before = state(project)
    for file in (project / "raw" / "style").iterdir():
        file.unlink()
    assert "style/ has 0 distinct good images" in str(add(project, "paintings", "raw", code=2)["error"])
    assert state(project) == before


def test_outside_of_a_project_it_says_what_is_missing(project: Path, tmp_path: Path) -> None:
    make_folder(tmp_path / "raw", 48, 0)
    shutil.rmtree(project / ".dvc")
    assert "not a DVC repository: run `dvc init`" in str(add(project, "fruit", "../raw", code=2)["error"])
    shutil.rmtree(project / ".git")
    assert "not a git repository: run `git init`" in str(add(project, "fruit", "../raw", code=2)["error"])
    assert not (project / "data").exists()


@pytest.mark.parametrize("known", [False, True])
def test_an_interrupt_after_dvc_recorded_is_taken_back(
    project: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")
    make_folder(project / "raw", 48, 0)
    if known:
        add(project, "fruit", "raw")
        shutil.copyfile(project / "raw" / "apple" / "good-0000.png", project / "raw" / "apple" / "copy.png")
    before = state(project)
    seen: list[bool] = []
    record = add_module._record

    def interrupted(root: Path, name: str) -> None:
        record(root, name)
        seen.append(state(project) != before)
        raise KeyboardInterrupt

    monkeypatch.setattr(add_module, "_record", interrupted)
    with pytest.raises(KeyboardInterrupt):
        add_module.add_folder(project, "fruit", project / "raw", None, lambda *_: None)
    assert seen == [True]
    assert state(project) == before
    assert not list(project.glob("data/.*"))


@pytest.mark.parametrize(
    "delay", [0.3, 0.9, *(pytest.param(delay, marks=pytest.mark.thorough) for delay in (0.6, 1.2))]
)
def test_an_interrupt_leaves_everything_as_it_was(project: Path, delay: float) -> None:
    make_folder(project / "raw", 96, 10)
    before = state(project)
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "200"}
    command = ["assay", "data", "add", "fruit", "raw", "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=project, env=environment, start_new_session=True, **pipes)  # type: ignore[call-overload]
    time.sleep(delay)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does
    process.communicate(timeout=30)
    if state(project) != before:  # it was too late: then everything is there
        assert "fruit" in load_params(project / "params.yaml").datasets
        open_dataset(project, "fruit", project / "data" / "fruit")
    assert not list(project.glob("data/.*"))
    assert add(project, "fruit", "raw")["samples"] == 96
