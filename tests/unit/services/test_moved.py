"""A project that is moved or copied takes its artifacts along."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from assay.errors import InputError
from assay.owner import Owner
from assay.services.moved import follow_move
from assay.settings import Settings

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


def use(project: Path, *runs: str) -> str:
    """Read an artifact of each run, and make another run, all in another process: MLflow remembers places."""
    command = [sys.executable, "-c", USE, *runs]
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


def test_a_project_that_a_process_may_still_use_under_its_old_name_is_left_alone(project: Path, tmp_path: Path) -> None:
    run = use(project)
    database = project / ".assay/mlflow.db"
    with closing(sqlite3.connect(database)) as store, store:
        store.execute("UPDATE runs SET status = 'RUNNING'")
        store.execute("INSERT INTO tags VALUES ('assay.owner', ?, ?)", (Owner.here().text(), run))
    moved = tmp_path / "moved"
    project.rename(moved)
    before = (moved / ".assay/mlflow.db").read_bytes()
    with pytest.raises(InputError, match=f"was at .*öfter, and a process there may still work on run {run}"):
        follow_move(Settings(project=moved))
    assert (moved / ".assay/mlflow.db").read_bytes() == before
