"""A project that is moved or copied takes its artifacts along."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from assay.errors import InputError
from assay.owner import Owner
from assay.services.moved import follow_move
from assay.settings import Settings
from assay.train.folder import LOCK

DATABASE = ".assay/mlflow.db"
REAP = """
from pathlib import Path
from assay.settings import Settings
from assay.tracking.runs import reap
from assay.tracking.tracker import Tracker
settings = Settings(project=Path.cwd())
print(reap(settings, Tracker(settings)))
"""
USE = """
import sys
from pathlib import Path
from assay.settings import Settings
from assay.tracking.provenance import Provenance
from assay.tracking.tracker import Tracker
tracker = Tracker(Settings(project=Path.cwd()))
for name in sys.argv[1:]:
    assert tracker.read_bytes(name, "a.txt") == b"of " + name.encode()
tags = {"fingerprint": "f", "commit": "c", "dataset": "d", "dataset_hash": "h"}
run = tracker.create("runs", Provenance(tags, {}, ""))
tracker.log_bytes(run, "a.txt", b"of " + run.encode())
print(run)
"""


def use(project: Path, *runs: str, program: str = USE) -> str:
    """Read an artifact of each run, and make another run, all in another process: MLflow remembers places."""
    command = [sys.executable, "-c", program, *runs]
    done = subprocess.run(command, cwd=project, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "ours, öfter"
    folder.mkdir()
    (folder / "params.yaml").touch()
    return folder


def test_a_moved_and_a_copied_project_read_and_write_their_own_artifacts(project: Path, tmp_path: Path) -> None:
    first = use(project)
    copy = tmp_path / "a copy"
    shutil.copytree(project, copy)
    second = use(copy, first)
    assert list(copy.glob(f".assay/artifacts/*/{second}/artifacts/a.txt"))
    assert not list(project.glob(f".assay/artifacts/*/{second}"))
    use(project, first)  # the original is as it was

    moved = tmp_path / "moved"
    project.rename(moved)
    use(moved, first)
    assert not project.exists()

    (tmp_path / "link").symlink_to(moved)
    use(tmp_path / "link", first)


def left_running(project: Path, owner: Owner, parent: str = "") -> str:
    """A run that says RUNNING, and that this process works on, or did so last."""
    run = use(project)
    tags = {"assay.owner": owner.text(), **({"mlflow.parentRunId": parent} if parent else {})}
    with closing(sqlite3.connect(project / DATABASE)) as store, store:
        store.execute("UPDATE runs SET status = 'RUNNING' WHERE run_uuid = ?", (run,))
        store.executemany("INSERT INTO tags VALUES (?, ?, ?)", [(name, value, run) for name, value in tags.items()])
    return run


def gone(kind: str) -> Owner:
    """A process that nobody can find: killed, or of a machine or boot that is not this one."""
    here = Owner.here()
    return replace(here, started=1) if kind == "killed" else replace(here, machine="an earlier boot")


def places(project: Path) -> list[str]:
    with closing(sqlite3.connect(project / DATABASE)) as store:
        return [place for (place,) in store.execute("SELECT artifact_uri FROM runs")]


def test_a_run_that_a_reboot_or_a_restore_left_running_moves_along(project: Path, tmp_path: Path) -> None:
    """Its folder came along, and nobody holds the lock in it: then the next training marks it KILLED."""
    search = left_running(project, gone("rebooted"))
    (project / ".assay/runs" / search).mkdir(parents=True)
    left_running(project, gone("rebooted"), parent=search)  # a trial has no folder of its own
    left_running(project, gone("killed"))
    moved = tmp_path / "moved"
    project.rename(moved)
    follow_move(Settings(project=moved))
    assert all(place.startswith(f"{moved.as_uri()}/") for place in places(moved))
    assert search in use(moved, program=REAP)


def test_a_project_that_a_process_still_uses_under_its_old_name_is_left_alone(project: Path, tmp_path: Path) -> None:
    run = left_running(project, Owner.here())
    (project / ".assay/runs" / run).mkdir(parents=True)
    moved = tmp_path / "moved"
    shutil.copytree(project, moved)  # as `mv` does it onto another disk: the process has the lock in the old folder
    shutil.rmtree(project)
    before = (moved / DATABASE).read_bytes()
    with pytest.raises(InputError, match=f"was at .*öfter, and process {os.getpid()} still works on run {run}: end it"):
        follow_move(Settings(project=moved))
    assert (moved / DATABASE).read_bytes() == before


def test_a_run_whose_lock_is_held_is_worked_on_wherever_its_process_is(project: Path, tmp_path: Path) -> None:
    run = left_running(project, gone("in another container"))
    folder = project / ".assay/runs" / run
    folder.mkdir(parents=True)
    moved = tmp_path / "moved"
    with FileLock(folder / LOCK):
        project.rename(moved)
        with pytest.raises(InputError, match=f"and another process still works on run {run}: end it, or move"):
            follow_move(Settings(project=moved))
    follow_move(Settings(project=moved))


def test_of_a_run_without_its_folder_the_user_is_asked(project: Path, tmp_path: Path) -> None:
    runs = {left_running(project, gone("rebooted")) for _ in range(2)}
    moved = tmp_path / "moved"
    project.rename(moved)
    told = re.compile(r"may still work on run (\w+): end it; if there is none, run `(python -c .*)` in (.*)$")
    for _ in range(2):
        with pytest.raises(InputError) as caught:
            follow_move(Settings(project=moved))
        found = told.search(str(caught.value))
        assert found
        runs.remove(found[1])
        assert found[3] == str(moved)
        subprocess.run([sys.executable, *shlex.split(found[2])[1:]], cwd=moved, check=True)
    follow_move(Settings(project=moved))


def test_a_copy_leaves_a_run_at_work_to_the_original(project: Path, tmp_path: Path) -> None:
    run = left_running(project, Owner.here())
    folder = project / ".assay/runs" / run
    folder.mkdir(parents=True)
    copy = tmp_path / "copy"
    with FileLock(folder / LOCK, timeout=0):
        shutil.copytree(project, copy)
        before = (project / DATABASE).read_bytes()
        assert use(copy, program=REAP) == "[]"  # the copy does not take it for dead, though its own lock is free
    assert (project / DATABASE).read_bytes() == before
    assert all(place.startswith(f"{copy.as_uri()}/") for place in places(copy))
