"""A worker's folder on its own node is its own, and stays until the store has what is in it."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from assay.errors import InputError, Unavailable
from assay.owner import Owner
from assay.storage.attempts import BEGUN, of
from assay.storage.object_store import ObjectStore
from assay.storage.run_mirror import Sender, sending
from assay.train.checkpoint import MANIFEST
from assay.train.folder import ATTEMPT, CHECKPOINTS, SENT, STOP
from assay.workers import home
from assay.workers.assignment import Assignment
from assay.workers.home import OWNER, at_home


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(home.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path / f"assay-runs-{os.getuid()}"


@pytest.fixture
def assignment(bucket: str) -> Assignment:
    return Assignment("r1", {}, "", "", "/driver/r1", 1, False, {}, store=f"{bucket}/r1", attempt="00000001-0001-a")


def die(folder: Path) -> None:
    """As if its process were gone."""
    (folder / OWNER).write_text(replace(Owner.here(), pid=2**22 + 7).text())


def test_a_shared_folder_is_used_as_it_is(runs: Path) -> None:
    shared = Assignment("r1", {}, "", "", "/shared/r1", 1, False, {})
    with at_home(shared, 0) as here:
        assert here == shared
    assert not runs.exists()


def test_each_rank_has_a_folder_and_leaves_none_that_was_sent(runs: Path, assignment: Assignment) -> None:
    with at_home(assignment, 0) as first, at_home(assignment, 1) as second:
        assert first.folder != second.folder
        assert stat.S_IMODE(runs.stat().st_mode) == 0o700
        (Path(first.folder) / SENT).touch()
    assert list(runs.iterdir()) == []


def test_what_was_not_sent_stays_and_the_next_attempt_here_begins_with_it(runs: Path, assignment: Assignment) -> None:
    with at_home(assignment, 0) as first, at_home(assignment, 1):
        of(ObjectStore(first.store), first.attempt).put(BEGUN, b"")
        (Path(first.folder) / ATTEMPT).write_text(first.attempt)
        (Path(first.folder) / "state").write_text("precious")
        (Path(first.folder) / STOP).touch()
    assert (Path(first.folder) / "state").exists()
    with at_home(replace(assignment, attempt="00000002-0001-b"), 0) as other:
        assert not (Path(other.folder) / "state").exists()  # its process, this one, is alive
        (Path(other.folder) / SENT).touch()
    die(Path(first.folder))
    with at_home(replace(assignment, attempt="00000003-0001-c"), 0) as second:
        assert (Path(second.folder) / "state").read_text() == "precious"
        assert not (Path(second.folder) / STOP).exists()
        assert not Path(first.folder).exists()
        (Path(second.folder) / SENT).touch()
    assert list(runs.iterdir()) == []


def test_folders_of_the_dead_are_removed_once_nobody_needs_them(
    runs: Path, assignment: Assignment, bucket: str
) -> None:
    def left(run: str, attempt: str) -> Path:
        with at_home(replace(assignment, run_id=run, store=f"{bucket}/{run}", attempt=attempt), 0) as here:
            pass
        die(Path(here.folder))
        return Path(here.folder)

    of(ObjectStore(f"{bucket}/r2"), "00000001-0001-x").put(BEGUN, b"")
    of(ObjectStore(f"{bucket}/r3"), "00000001-0001-x").put(BEGUN, b"")
    of(ObjectStore(f"{bucket}/r3"), "00000002-0001-y").put(f"{CHECKPOINTS}/step-01/{MANIFEST}", b"")
    unsaved, saved_later = left("r2", "00000001-0001-x"), left("r3", "00000001-0001-x")
    finished = left("r4", "00000001-0001-x")
    with at_home(assignment, 1):
        assert [folder.exists() for folder in (unsaved, saved_later, finished)] == [True, False, False]


def test_a_store_that_went_away_for_good_keeps_the_folder(
    runs: Path, assignment: Assignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: Sender) -> None:
        raise ConnectionError("no route to host")

    def lose() -> None:
        with at_home(assignment, 0) as here, sending(here.store, here.attempt, Path(here.folder), print):
            monkeypatch.setattr(Sender, "_sync", gone)
            (Path(here.folder) / STOP).touch()

    with pytest.raises(Unavailable, match="no route to host: the run is safe in .*, where the same command continues"):
        lose()
    (folder,) = runs.glob("r1/*/rank-0")
    assert not (folder / SENT).exists()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to give a folder away")
def test_a_folder_of_somebody_else_is_refused(runs: Path, assignment: Assignment) -> None:
    runs.mkdir()
    os.chown(runs, 4242, 4242)
    with pytest.raises(InputError, match="belongs to somebody else"), at_home(assignment, 0):
        pass
