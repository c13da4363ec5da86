"""Runs that nobody ends: killed while they were made, of another clone or machine, without their folder, deleted."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from assay.errors import InputError, WorkError
from assay.owner import Owner
from assay.settings import Settings
from assay.tracking import runs
from assay.tracking.runs import claim, reap, status_as_earned
from assay.tracking.tracker import Tracker
from tests.unit.tracking.test_runs import EXPERIMENT, provenance, status


class Killed(BaseException):
    """Stands for `kill -9`: nothing handles it, and the kernel frees locks as leaving their blocks does."""


class Dying:
    """A client of the store whose process is killed right after the n-th call."""

    def __init__(self, client: Any, calls: int) -> None:
        self.client, self.left = client, calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            answer = found(*arguments, **named)
            self.left -= 1
            if self.left == 0:
                raise Killed
            return answer

        return call


def gone() -> Owner:
    """A process of this machine that has ended."""
    return replace(Owner.here(), started=1)


@pytest.mark.parametrize("reaper", ["the same project", "another clone", "the same project after a restart"])
def test_killed_after_any_call_a_run_is_made_once_and_never_stays_running(
    settings: Settings, tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reaper: str
) -> None:
    clone = Settings(project=tmp_path, MLFLOW_TRACKING_URI=settings.tracking) if "clone" in reaper else settings
    survived, calls = False, 0
    while not survived:
        calls += 1
        inputs = provenance()
        dying = Tracker(settings)
        dying.__dict__["_client"] = Dying(tracker._client, calls)
        owner = replace(gone(), machine="an earlier boot") if "restart" in reaper else gone()
        monkeypatch.setattr(Owner, "here", lambda owner=owner: owner)
        try:
            with claim(settings, dying, EXPERIMENT, inputs, None, False):
                survived = True
        except Killed:
            pass
        monkeypatch.undo()
        reap(clone, tracker)
        left = tracker.find_all(EXPERIMENT, inputs.tags["fingerprint"])
        here = all((clone.runs / run.info.run_id).exists() for run in left)
        assert {run.info.status for run in left} <= {"KILLED"}, (calls, here)
        with claim(settings, tracker, EXPERIMENT, inputs, None, False) as held:
            assert not held.finished
        (run,) = tracker.find_all(EXPERIMENT, inputs.tags["fingerprint"])
        assert run.info.run_id == held.run_id
        assert json.loads(tracker.read_bytes(held.run_id, "provenance/config.json")) == inputs.config
        tracker.set_status(held.run_id, "FINISHED")
    assert calls > 8


def test_a_run_of_a_living_process_with_a_folder_elsewhere_is_left_alone(
    settings: Settings, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two clones on one machine: the lock of one says nothing of the other's runs."""
    inputs = provenance()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        monkeypatch.setattr(Owner, "here", lambda: Owner.of(other.pid))
        with claim(settings, tracker, EXPERIMENT, inputs, None, False) as theirs:
            pass
        monkeypatch.undo()
        assert theirs.run_id not in reap(settings, tracker)
        with (
            pytest.raises(InputError, match=f"run {theirs.run_id} is being trained by another process"),
            claim(settings, tracker, EXPERIMENT, inputs, None, False),
        ):
            pass
        other.communicate(b"\n")
    assert theirs.run_id in reap(settings, tracker)


def test_a_run_of_another_machine_is_left_to_it(
    settings: Settings, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = provenance()
    owner = replace(Owner.here(), machine="another")
    monkeypatch.setattr(Owner, "here", lambda: owner)
    with claim(settings, tracker, EXPERIMENT, inputs, None, False) as theirs:
        pass
    monkeypatch.undo()
    shutil.rmtree(theirs.folder)  # it is there, not here
    assert theirs.run_id not in reap(settings, tracker)
    with claim(settings, tracker, EXPERIMENT, inputs, None, False) as ours:
        assert ours.run_id != theirs.run_id
    assert status(tracker, theirs.run_id) == "RUNNING"
    tracker.set_status(theirs.run_id, "FAILED")


def test_a_run_is_not_continued_without_what_it_has_behind_it(settings: Settings, tracker: Tracker) -> None:
    """From its beginning it would record each of its metrics again."""
    inputs = provenance()
    with claim(settings, tracker, EXPERIMENT, inputs, None, False) as first:
        tracker.log_points(first.run_id, [("train/loss", 1.0, 1, 1)])
    tracker.set_status(first.run_id, "KILLED")
    shutil.rmtree(first.folder)
    with claim(settings, tracker, EXPERIMENT, inputs, None, False) as second:
        assert second.run_id != first.run_id
    with (
        pytest.raises(InputError, match=f"run {first.run_id} cannot be continued here, because its folder"),
        claim(settings, tracker, EXPERIMENT, inputs, first.run_id, False),
    ):
        pass


def test_a_deleted_run_is_in_nobodys_way(settings: Settings, tracker: Tracker) -> None:
    inputs = provenance()
    with claim(settings, tracker, EXPERIMENT, inputs, None, False) as held:
        tracker._client.delete_run(held.run_id)
        for use in (tracker.get, lambda run_id: tracker.set_status(run_id, "FINISHED")):
            with pytest.raises(InputError, match=f"run {held.run_id} was deleted in MLflow: restore it there"):
                use(held.run_id)
        with pytest.raises(WorkError, match="diverged"), status_as_earned(held.run_id, tracker):
            raise WorkError("it diverged")
    assert held.run_id not in reap(settings, tracker)
    with claim(settings, tracker, EXPERIMENT, inputs, None, False) as other:
        assert other.run_id != held.run_id
    with (
        pytest.raises(InputError, match="was deleted in MLflow"),
        claim(settings, tracker, EXPERIMENT, inputs, held.run_id, False),
    ):
        pass


def test_a_run_that_is_deleted_while_it_is_reaped_is_left_out(
    settings: Settings, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with claim(settings, tracker, EXPERIMENT, provenance(), None, False) as held:
        pass
    take = runs._lock

    def late(folder: Path) -> FileLock | None:
        if folder.name == held.run_id:
            tracker._client.delete_run(held.run_id)
        return take(folder)

    monkeypatch.setattr(runs, "_lock", late)
    assert held.run_id not in reap(settings, tracker)
