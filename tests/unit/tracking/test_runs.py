"""A run has one worker at a time, is found again by its inputs, and never says RUNNING for long after a death."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from assay.errors import InputError, Interrupted
from assay.owner import Owner
from assay.settings import Settings
from assay.tracking import runs
from assay.tracking.provenance import PREFIX, Provenance
from assay.tracking.runs import claim, reap, status_as_earned
from assay.tracking.tracker import Tracker
from assay.train.folder import LOCK, SPOOL
from assay.train.spool import Spool

EXPERIMENT = "runs"


def provenance(fingerprint: str | None = None) -> Provenance:
    tags = {
        "fingerprint": fingerprint or uuid.uuid4().hex,
        "commit": "c" * 40,
        "dataset": "d",
        "dataset_hash": "h" * 36,
    }
    return Provenance(tags, {"seed": 3, "optimizer": {"lr": 0.1}}, "a diff", {"torch": "2"})


def status(tracker: Tracker, run_id: str) -> str:
    found: str = tracker.get(run_id).info.status
    return found


def test_a_claim_makes_a_run_with_its_record(settings: Settings, tracker: Tracker) -> None:
    inputs = provenance()
    with claim(settings, tracker, EXPERIMENT, inputs, None, False) as held:
        assert not held.finished
        assert held.folder == settings.runs / held.run_id
        assert held.folder.is_dir()
        run = tracker.get(held.run_id)
        assert run.info.status == "RUNNING"
    assert run.data.params == {"seed": "3", "optimizer.lr": "0.1"}
    assert run.data.tags[PREFIX + "fingerprint"] == inputs.tags["fingerprint"]
    assert run.data.tags["mlflow.source.git.commit"] == "c" * 40
    (data,) = tracker._client.get_run(held.run_id).inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("d", "h" * 36)
    assert json.loads(tracker.read_bytes(held.run_id, "provenance/config.json")) == inputs.config
    assert tracker.read_bytes(held.run_id, "provenance/working-tree.diff") == b"a diff"
    assert json.loads(tracker.read_bytes(held.run_id, "provenance/packages.json")) == {"torch": "2"}
    with FileLock(held.folder / LOCK, timeout=0):
        pass  # given back


def test_what_was_begun_with_new_says_how_it_is_continued(settings: Settings, tracker: Tracker) -> None:
    """The same command would begin another run."""
    told = "stopped and saved; to continue, run the same command"
    inputs = provenance()
    with (
        pytest.raises(Interrupted, match=r"to continue, run `assay train digits --resume (\w+)`$"),
        claim(
            settings, tracker, EXPERIMENT, replace(inputs, tags={**inputs.tags, "experiment": "digits"}), None, True
        ) as held,
        status_as_earned(held.run_id, tracker),
    ):
        raise Interrupted(told)
    assert tracker.get(held.run_id).data.tags[PREFIX + "reason"].endswith(f"--resume {held.run_id}`")
    with pytest.raises(Interrupted, match=told), claim(settings, tracker, EXPERIMENT, inputs, None, False):
        raise Interrupted(told)


def test_a_trial_that_died_is_continued_by_its_search(settings: Settings, tracker: Tracker) -> None:
    """`assay tune` takes the id of a search."""
    inputs = provenance()
    named = {**inputs.tags, "search": "s", "owner": json.dumps({**Owner.here().plain(), "started": 1})}
    search = tracker.create(EXPERIMENT, replace(inputs, tags=named, kind="search"))
    trial = tracker.begin(
        EXPERIMENT, replace(inputs, tags={**named, "search_id": search}, kind="trial"), search, "trial-0000"
    )
    assert {search, trial} <= set(reap(settings, tracker))
    for run_id in (search, trial):
        reason = tracker.get(run_id).data.tags[PREFIX + "reason"]
        assert reason == f"its process died; to continue it: `assay tune s --resume {search}`"


def test_the_same_inputs_continue_the_run_and_new_starts_another(settings: Settings, tracker: Tracker) -> None:
    inputs = provenance()
    with claim(settings, tracker, EXPERIMENT, inputs, None, False) as first:
        pass
    tracker.set_status(first.run_id, "FAILED", "a reason")
    with claim(settings, tracker, EXPERIMENT, inputs, None, False) as again:
        assert (again.run_id, again.finished) == (first.run_id, False)
        run = tracker.get(again.run_id)
        assert (run.info.status, run.data.tags[PREFIX + "reason"]) == ("RUNNING", "")
    with claim(settings, tracker, EXPERIMENT, inputs, None, True) as other:
        assert other.run_id != first.run_id
    with claim(settings, tracker, EXPERIMENT, provenance(), first.run_id, False) as resumed:
        assert resumed.run_id == first.run_id
    with claim(settings, tracker, EXPERIMENT, provenance(), None, False) as changed:
        assert changed.run_id not in {first.run_id, other.run_id}


def test_a_finished_run_is_returned_and_preferred(settings: Settings, tracker: Tracker) -> None:
    inputs = provenance()
    with claim(settings, tracker, EXPERIMENT, inputs, None, False) as first:
        pass
    tracker.set_status(first.run_id, "FINISHED")
    with claim(settings, tracker, EXPERIMENT, inputs, None, True) as newer:
        pass
    tracker.set_status(newer.run_id, "FAILED")
    with claim(settings, tracker, EXPERIMENT, inputs, None, False) as found:
        assert (found.run_id, found.finished) == (first.run_id, True)
    assert status(tracker, first.run_id) == "FINISHED"


def test_a_run_that_another_process_holds_is_refused(settings: Settings, tracker: Tracker) -> None:
    inputs = provenance()
    with claim(settings, tracker, EXPERIMENT, inputs, None, False) as held:
        with (
            pytest.raises(InputError, match=f"run {held.run_id} is being trained by another process"),
            claim(settings, tracker, EXPERIMENT, inputs, None, False),
        ):
            pass
        assert status(tracker, held.run_id) == "RUNNING"
        assert held.run_id not in reap(settings, tracker)
        with claim(settings, tracker, EXPERIMENT, inputs, None, True) as other:
            assert other.run_id != held.run_id


def test_an_error_gives_the_run_back(settings: Settings, tracker: Tracker) -> None:
    inputs = provenance()
    with pytest.raises(ZeroDivisionError), claim(settings, tracker, EXPERIMENT, inputs, None, False) as held:
        raise ZeroDivisionError
    with claim(settings, tracker, EXPERIMENT, inputs, None, False) as again:
        assert again.run_id == held.run_id


def test_an_unknown_run_is_refused(settings: Settings, tracker: Tracker) -> None:
    with (
        pytest.raises(InputError, match="no run 'nothing'"),
        claim(settings, tracker, EXPERIMENT, provenance(), "nothing", False),
    ):
        pass


def test_the_dead_are_marked_and_their_metrics_shipped(settings: Settings, tracker: Tracker) -> None:
    reap(settings, tracker)  # what other tests left
    run_id = tracker.create(EXPERIMENT, provenance())
    (settings.runs / run_id).mkdir(parents=True)
    spool = Spool(settings.runs / run_id / SPOOL)
    spool.append(1, {"train/loss": 0.5})
    spool.close()
    elsewhere = tracker.create(EXPERIMENT, provenance())  # no folder here, and no owner to ask
    foreign = tracker._client.create_run(tracker.get(run_id).info.experiment_id).info.run_id
    (settings.runs / foreign).mkdir()
    try:
        assert reap(settings, tracker) == [run_id]
        run = tracker.get(run_id)
        assert (run.info.status, run.data.metrics) == ("KILLED", {"train/loss": 0.5})
        assert run.data.tags[PREFIX + "reason"].startswith("its process died; to continue it: `assay train ")
        assert run.info.end_time
        assert [status(tracker, other) for other in (elsewhere, foreign)] == ["RUNNING", "RUNNING"]
        assert reap(settings, tracker) == []
    finally:
        for other in (elsewhere, foreign):
            tracker.set_status(other, "FAILED")


def finished_in_between(tracker: Tracker, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process ends the run well after its status was read and before its lock was taken."""
    take = runs._lock

    def late(folder: Path) -> FileLock | None:
        if folder.name == run_id:
            tracker.set_status(run_id, "FINISHED")
        return take(folder)

    monkeypatch.setattr(runs, "_lock", late)


def test_a_run_that_ends_before_it_is_locked_stays_finished(
    settings: Settings, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = provenance()
    with claim(settings, tracker, EXPERIMENT, inputs, None, False) as first:
        pass
    finished_in_between(tracker, first.run_id, monkeypatch)
    with claim(settings, tracker, EXPERIMENT, inputs, None, False) as again:
        assert (again.run_id, again.finished) == (first.run_id, True)
    assert status(tracker, first.run_id) == "FINISHED"


def test_a_run_that_ends_while_it_is_reaped_stays_finished(
    settings: Settings, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with claim(settings, tracker, EXPERIMENT, provenance(), None, False) as held:
        pass
    finished_in_between(tracker, held.run_id, monkeypatch)
    assert held.run_id not in reap(settings, tracker)
    assert status(tracker, held.run_id) == "FINISHED"


def test_more_runs_than_a_page_holds_are_all_seen(
    settings: Settings, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, inputs = tracker._client, provenance()
    made = {tracker.create(EXPERIMENT, inputs) for _ in range(5)}
    monkeypatch.setattr(tracker, "_client", Paged(client))
    try:
        assert made <= {run.info.run_id for run in tracker.unfinished()}
        assert {run.info.run_id for run in tracker.find_all(EXPERIMENT, inputs.tags["fingerprint"])} == made
        assert len(tracker.newest("run", EXPERIMENT, 4)) == 4
    finally:
        monkeypatch.undo()
        for run_id in made:
            tracker.set_status(run_id, "FAILED")


class Paged:
    """A client whose searches answer two at a time."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.client, name)
        return partial(found, max_results=2) if name.startswith("search_") else found


WORKER = """
import sys, time
from pathlib import Path
from assay.settings import Settings
from assay.tracking.provenance import Provenance
from assay.tracking.runs import claim
from assay.tracking.tracker import Tracker
from assay.train.spool import Spool
from assay.train.folder import SPOOL
settings = Settings(project=Path(sys.argv[1]))
tags = {"fingerprint": sys.argv[2], "commit": "c", "dataset": "d", "dataset_hash": "h"}
with claim(settings, Tracker(settings), "runs", Provenance(tags, {}, ""), None, False) as held:
    spool = Spool(held.folder / SPOOL)
    spool.append(7, {"train/loss": 0.25})
    print(held.run_id, flush=True)
    time.sleep(60)
"""


def test_a_process_that_is_killed_leaves_no_run_running(settings: Settings, tracker: Tracker) -> None:
    inputs = provenance()
    assert tracker._client.search_experiments()  # the schema is there before a second process asks for it
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(settings.root), inputs.tags["fingerprint"]],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert worker.stdout is not None
        run_id = worker.stdout.readline().strip()
        assert status(tracker, run_id) == "RUNNING"
        with (
            pytest.raises(InputError, match="another process"),
            claim(settings, tracker, EXPERIMENT, inputs, None, False),
        ):
            pass
        os.kill(worker.pid, signal.SIGKILL)
        killed = time.monotonic()
        while status(tracker, run_id) == "RUNNING":
            assert time.monotonic() - killed < 120  # a busy machine is no failure
            time.sleep(0.1)
        run = tracker.get(run_id)
        assert run.info.status == "KILLED"
        assert run.data.metrics == {"train/loss": 0.25}
    finally:
        worker.kill()
        worker.wait()
        if worker.stdout is not None:
            worker.stdout.close()
    with claim(settings, tracker, EXPERIMENT, inputs, None, False) as again:
        assert again.run_id == run_id
