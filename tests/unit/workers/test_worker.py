"""A worker's folder on its own node is its own, and nothing stays of it."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from assay.errors import InputError
from assay.train.folder import SPOOL
from assay.workers import worker
from assay.workers.assignment import Assignment


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(worker.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path / f"assay-runs-{os.getuid()}"


def assignment(attempt: str) -> Assignment:
    return Assignment("r1", {}, "", "", "/driver/r1", 1, False, store="s3://b/runs/r1", attempt=attempt)


def test_a_shared_folder_is_used_as_it_is(runs: Path) -> None:
    shared = Assignment("r1", {}, "", "", "/shared/r1", 1, False)
    with worker._at_home(shared, 0) as here:
        assert here == shared
    assert not runs.exists()


def test_each_rank_has_a_folder_and_leaves_none(runs: Path) -> None:
    with worker._at_home(assignment("a"), 0) as first, worker._at_home(assignment("a"), 1) as second:
        assert first.folder != second.folder
        for each in (first, second):
            Path(each.folder).mkdir(parents=True)
        assert stat.S_IMODE(runs.stat().st_mode) == 0o700
    assert list(runs.iterdir()) == []


def test_what_killed_workers_left_is_removed(runs: Path) -> None:
    earlier, old, young = runs / "r1/x/rank-0", runs / "r2/y/rank-0", runs / "r3/z/rank-0"
    for folder in (earlier, old, young):
        folder.mkdir(parents=True)
        (folder / SPOOL).touch()
    past = time.time() - 2 * worker.FORGET_SECONDS
    for path in (old / SPOOL, old.parent):
        os.utime(path, (past, past))
    with worker._at_home(assignment("a"), 0):
        assert not earlier.exists()
        assert not old.exists()
        assert young.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to give a folder away")
def test_a_folder_of_somebody_else_is_refused(runs: Path) -> None:
    runs.mkdir()
    os.chown(runs, 4242, 4242)
    with pytest.raises(InputError, match="belongs to somebody else"), worker._at_home(assignment("a"), 0):
        pass
