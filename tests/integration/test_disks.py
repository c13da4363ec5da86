"""A disk that refuses gives one line with the path, and the same command works once it takes files again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import QUICK, Project
from tests.support.bad_images import make_folder
from tests.support.disks import Disk, small_disk

TRAIN = ("train", "digits", *(word for pair in QUICK for word in ("--set", pair)))
MEGABYTES = 60


def refused(disk: Disk, *words: str) -> str:
    """The line of a verb that the disk refuses."""
    done = disk.run("assay", *words, code=1)
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith(f"{line}\n")
    assert f"error: {disk.project.root}/" in line, line
    assert line.endswith("then give the same command again")
    return line


@pytest.mark.timeout(900)
def test_a_read_only_state(project: Project) -> None:
    make_folder(project.root / "raw", 24, 0)
    with small_disk(project, MEGABYTES) as disk:
        disk.remount("ro", ".assay")
        for words in (TRAIN, ("data", "add", "pets", "raw")):
            assert "read-only: make it writable" in refused(disk, *words)
        disk.remount("rw", ".assay")
        disk.run("assay", *TRAIN)


@pytest.mark.thorough
@pytest.mark.timeout(1800)
def test_a_full_disk_in_a_training(project: Project) -> None:
    with small_disk(project, MEGABYTES) as disk:
        for left in (0, 200, 400, 1000):  # before the run, while it begins, while it trains, while it is recorded
            disk.fill(left)
            assert "the disk is full: make room" in refused(disk, *TRAIN)
            disk.free()
        record = json.loads(disk.run("assay", *TRAIN, "--json").stdout)
        again = json.loads(disk.run("assay", *TRAIN, "--json").stdout)
        assert (record["status"], again["run_id"]) == ("FINISHED", record["run_id"])
        assert disk.run("ls", "-A", ".assay/runs").stdout == ".claims.lock\n"


@pytest.mark.thorough
@pytest.mark.timeout(1800)
def test_a_disk_that_is_full_or_read_only_after_the_training(project: Project) -> None:
    make_folder(project.root / "raw", 24, 0)
    with small_disk(project, MEGABYTES) as disk:
        run = json.loads(disk.run("assay", *TRAIN, "--json").stdout)["run_id"]
        verbs = (("evaluate", run), ("register", run), ("data", "add", "pets", "raw"), ("predict", "digits", "raw"))
        for words in verbs:
            disk.fill()
            assert "the disk is full: make room" in refused(disk, *words)
            disk.free()
            disk.remount("ro", ".assay")
            assert "read-only: make it writable" in refused(disk, *words)
            disk.remount("rw", ".assay")
            disk.run("assay", *words)


DAMAGES = {"empty": b"", "cut": b'{"run_id": "0123', "garbage": b"\xff\x00\x7f", "other": b"[1]"}


def test_damaged_results_are_named_with_the_command_that_writes_them_again(project: Project) -> None:
    from assay.usecases.helpers.results import ExperimentResults

    text = project.settings.params_file.read_text()
    assert "workers: 2" in text
    project.settings.params_file.write_text(text.replace("workers: 2", "workers: 0").replace("epochs: 20", "epochs: 3"))
    project.train("digits")
    results = ExperimentResults.of(project.root, "digits")
    whole = results.record.read_bytes()
    for content in DAMAGES.values():
        results.record.write_bytes(content)
        for words in (("evaluate", "digits"), ("register", "digits")):
            line = project.refused(*words)
            assert line.startswith(f"error: {results.record}: damaged (")
            assert line.endswith("): run `assay train digits`, which writes it again\n")
        project.verb("train", "digits")
        assert results.record.read_bytes() == whole
    project.verb("evaluate", "digits")


def test_damaged_artifacts_and_services_are_named(project: Project) -> None:
    run = project.train("digits", *QUICK)["run_id"]
    (record,) = (project.root / ".assay/artifacts").rglob("record.json")
    (config,) = (project.root / ".assay/artifacts").rglob("config.json")
    for path, words in ((config, ("evaluate", run)), (record, TRAIN)):
        kept = shutil.copy(path, path.with_suffix(".kept"))
        for content in DAMAGES.values():
            path.write_bytes(content)
            line = project.refused(*words, code=1)
            assert line.startswith(f"error: run {run}: its ")
            assert "is not what was recorded" in line
            assert len(line.splitlines()) == 1
        Path(kept).replace(path)
        project.verb(*words)
