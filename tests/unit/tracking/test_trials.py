"""The trials of a search reach the store once each: beside running ones, after an outage, and by the next session."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay.errors import Unavailable, WorkError
from assay.tracking import trials
from assay.tracking.provenance import REQUIRED, Provenance
from assay.tracking.tracker import Tracker
from assay.tracking.trials import Entry, TrialRecorder
from assay.train.folder import SPOOL
from assay.train.spool import Spool

Make = Callable[..., TrialRecorder]


def provenance(entry: Entry) -> Provenance:
    return Provenance({**dict.fromkeys(REQUIRED, "x"), **entry.tags}, entry.config, "", kind="trial")


class Search:
    """A search's run in the store, and recorders for it."""

    def __init__(self, tracker: Tracker, folder: Path) -> None:
        self.tracker, self.folder, self.warnings = tracker, folder, []
        self.name = f"trials-{uuid.uuid4().hex[:8]}"
        self.id = tracker.begin(self.name, Provenance(dict.fromkeys(REQUIRED, "x"), {}, "", kind="search"))

    def recorder(self, tracker: Any = None) -> TrialRecorder:
        return TrialRecorder(tracker or self.tracker, self.id, self.name, provenance, self.warnings.append)

    def entry(self, number: int, status: str = "running", points: int = 3, **more: Any) -> Entry:
        at = self.folder / str(number)
        spool = Spool(at / SPOOL)
        for step in range(points):
            spool.append(step, {"val/score": float(step)})
        spool.close()
        return Entry(number, at, {"task": {"x": number}}, {"search": "s"}, status, **more)

    def runs(self) -> dict[str, Any]:
        return {run.data.tags["assay.trial"]: run for run in self.tracker.children(self.name, self.id)}

    def points(self, number: int) -> list[float]:
        run_id = self.runs()[str(number)].info.run_id
        return [point.value for point in self.tracker._client.get_metric_history(run_id, "val/score")]


@pytest.fixture
def search(tracker: Tracker, tmp_path: Path) -> Search:
    return Search(tracker, tmp_path)


def test_each_trial_is_a_child_with_its_end(search: Search) -> None:
    recorder = search.recorder()
    for number, status in enumerate(("finished", "stopped", "failed", "over")):
        recorder.put(search.entry(number))
        recorder.put(
            search.entry(number, status, reason=f"why {number}", metrics={"cost/parameters": 7.0, "val/score": 2.0})
        )
    recorder.put(search.entry(4))
    recorder.close()
    runs = search.runs()
    assert {number: run.info.status for number, run in runs.items()} == {
        "0": "FINISHED", "1": "FINISHED", "2": "FAILED", "3": "FINISHED", "4": "KILLED",
    }  # fmt: skip
    assert runs["2"].data.tags["assay.reason"] == "why 2"
    assert runs["3"].data.tags["assay.trial_status"] == "over"
    assert runs["1"].data.params == {"task.x": "1"}
    assert runs["1"].data.metrics == {"val/score": 2.0, "cost/parameters": 7.0}
    assert runs["1"].data.tags["mlflow.parentRunId"] == search.id
    told = f"the search was stopped; to continue it: `assay tune s --resume {search.id}`"
    assert runs["4"].data.tags["assay.reason"] == told
    assert search.points(4) == [0.0, 1.0, 2.0]


def test_the_next_session_hands_over_what_the_last_one_could_not(search: Search) -> None:
    first = search.recorder()
    first.put(search.entry(0, "finished"))
    first.put(search.entry(1))
    first.close()
    second = search.recorder()  # the journal says that all three have ended
    for number in range(3):
        second.put(search.entry(number, "finished"))
    second.close()
    assert Counter(run.info.status for run in search.runs().values()) == {"FINISHED": 3}
    assert [search.points(number) for number in range(3)] == [[0.0, 1.0, 2.0]] * 3


class Broken:
    """A tracker that does not answer while it is `down`."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker, self.down = tracker, True

    def __getattr__(self, name: str) -> Any:
        if self.down and name == "begin":
            raise ConnectionError("no route\nto host")
        return getattr(self.tracker, name)


def test_an_outage_is_told_once_and_costs_nothing(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "SECONDS", 0.05)
    broken = Broken(search.tracker)
    recorder = search.recorder(broken)
    recorder.put(search.entry(0, "finished"))
    recorder.put(search.entry(1, "finished"))
    while not search.warnings:
        pass
    broken.down = False
    recorder.close()
    assert search.warnings == ["the tracking store does not answer (no route to host); trials wait to be recorded"]
    assert sorted(search.runs()) == ["0", "1"]


def test_a_store_that_stays_down_is_an_error_that_says_what_is_safe(search: Search) -> None:
    recorder = search.recorder(Broken(search.tracker))
    recorder.put(search.entry(0, "finished"))
    with pytest.raises(WorkError, match="no route to host.*1 trials are safe.*when the search is resumed"):
        recorder.close()
    again = search.recorder()
    again.put(search.entry(0, "finished"))
    again.close()
    assert [run.info.status for run in search.runs().values()] == ["FINISHED"]


class Deaf:
    """A store whose answers to `begin` and `end` get lost the first time."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.lose = {"begin", "end"}

    def __getattr__(self, name: str) -> Any:
        made = getattr(self.tracker, name)

        def call(*arguments: Any) -> Any:
            answer = made(*arguments)
            if name in self.lose:
                self.lose.remove(name)
                raise Unavailable("no answer")
            return answer

        return call if name in self.lose else made


def test_an_answer_that_gets_lost_makes_nothing_twice(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "SECONDS", 0.01)
    deaf = Deaf(search.tracker)
    recorder = search.recorder(deaf)
    recorder.put(search.entry(0, "finished", metrics={"cost/parameters": 7.0}))
    while deaf.lose:
        pass
    recorder.close()
    (run,) = search.tracker.children(search.name, search.id)
    assert run.info.status == "FINISHED"
    assert len(search.tracker._client.get_metric_history(run.info.run_id, "cost/parameters")) == 1
