"""Every session of a run is recorded from its first step, also a killed one, and the run says how they differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from assay.settings import Settings
from assay.tracking.provenance import FLAGGED, PREFIX, REFUSED, REQUIRED, refusal
from assay.tracking.runs import claim, reap
from assay.tracking.sessions import DIFFER, NO_CHANGES, session_notes, sessions_of, sessions_record
from assay.tracking.tracker import Tracker
from assay.train.folder import STARTS
from assay.workers import starts
from assay.workers.starts import Start, note_start, read_starts
from tests.unit.tracking.test_runs import EXPERIMENT, provenance

Work = Callable[..., str]


@pytest.fixture
def work(settings: Settings, tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> Work:
    """A session that leaves the run RUNNING, as a killed one does; returns the run's id."""
    base = provenance()

    def work(*steps: int, processor: str = "CPU A", **tags: str) -> str:
        monkeypatch.setattr(starts, "processor", lambda _: processor)
        own = replace(base, tags={**base.tags, **tags}, diff=tags.get("diff_sha256", ""))
        with claim(settings, tracker, EXPERIMENT, own, None, False) as held:
            for step in steps:
                note_start(held.folder, held.session, step, gpu=False)
        return held.run_id

    return work


def test_each_session_is_recorded_with_its_first_step(settings: Settings, tracker: Tracker, work: Work) -> None:
    run_id = work(0, threads="2", commit="a" * 40, diff_sha256=NO_CHANGES)
    assert work(38, 76, threads="4", commit="b" * 40, diff_sha256="2" * 64) == run_id  # its workers died once
    work(threads="8", commit="b" * 40)  # stopped before its workers began
    assert run_id in reap(settings, tracker)
    tags = tracker.get(run_id).data.tags
    first, second, third = sessions_of(tags)
    assert [session.step for session in (first, second, third)] == [0, 38, None]
    assert [session.facts["threads"] for session in (first, second, third)] == ["2", "4", "8"]
    assert first.facts["processor"] == "CPU A"
    assert first.facts["started"]
    assert session_notes(tags) == [
        "its sessions differ in threads: 2 from step 0, 4 from step 38",
        f"its sessions differ in commit: {'a' * 12} from step 0, {'b' * 12} from step 38",
        "its sessions differ in uncommitted changes: none from step 0, 222222222222 from step 38",
    ]
    assert tags[DIFFER] == "; ".join(session_notes(tags))
    assert sessions_record(tags)["sessions"][1]["first_step"] == 38
    assert tags[PREFIX + "commit"] == "a" * 40
    assert tracker.read_bytes(run_id, "provenance/sessions/0002/working-tree.diff") == b"2" * 64
    assert json.loads(tracker.read_bytes(run_id, "provenance/sessions/0002/packages.json")) == {"torch": "2"}


def test_equal_sessions_differ_in_nothing(settings: Settings, tracker: Tracker, work: Work) -> None:
    run_id = work(0, threads="2")
    work(10, threads="2")
    reap(settings, tracker)
    tags = tracker.get(run_id).data.tags
    assert len(sessions_of(tags)) == 2
    assert (session_notes(tags), tags[DIFFER]) == ([], "")


def test_another_processor_is_said(settings: Settings, tracker: Tracker, work: Work) -> None:
    run_id = work(0, processor="CPU A")
    work(10, processor="CPU B")
    reap(settings, tracker)
    assert session_notes(tracker.get(run_id).data.tags) == [
        "its sessions differ in processor: CPU A from step 0, CPU B from step 10"
    ]


def test_a_torn_note_of_a_start_costs_no_other(tmp_path: Path) -> None:
    note_start(tmp_path, 1, 0, gpu=False)
    with (tmp_path / STARTS).open("ab") as file:
        file.write(b'{"session":2,"st')
    note_start(tmp_path, 3, 20, gpu=False)
    assert [(start.session, start.step) for start in read_starts(tmp_path)] == [(1, 0), (3, 20)]
    assert isinstance(next(read_starts(tmp_path)), Start)


@pytest.mark.parametrize("name", ["dataset_hash", "code_sha256", "files_sha256"])
def test_what_changes_the_weights_is_refused(name: str) -> None:
    here = {**dict.fromkeys((*REQUIRED, *REFUSED), "x"), "libraries": _libraries()}
    recorded = {PREFIX + tag: value for tag, value in here.items()}
    assert refusal(recorded, here) is None
    assert refusal({**recorded, PREFIX + "threads": "9"}, here) is None
    changed = {**recorded, PREFIX + "fingerprint": "y", PREFIX + "inputs_sha256": "y", PREFIX + name: "y"}
    refused = refusal(changed, here)
    assert refused is not None
    assert f"{REFUSED[name]} has changed since the run began ({name} was y, is x)" in refused


def test_other_libraries_and_other_settings_are_refused_too() -> None:
    here = {**dict.fromkeys((*REQUIRED, *REFUSED), "x"), "libraries": _libraries()}
    recorded = {PREFIX + tag: value for tag, value in here.items()} | {PREFIX + "fingerprint": "y"}
    assert "the configuration has changed" in str(refusal({**recorded, PREFIX + "inputs_sha256": "y"}, here))
    older = json.dumps({**json.loads(_libraries()), "torch": "1.0"})
    assert "torch 1.0, here " in str(refusal({**recorded, PREFIX + "libraries": older}, here))


def test_what_a_session_records_and_what_is_refused_are_apart() -> None:
    assert not set(FLAGGED) & set(REFUSED)


def _libraries() -> str:
    from assay.inputs import libraries

    return json.dumps(libraries())


def test_a_lost_session_is_noted_by_the_next(settings: Settings, tracker: Tracker, work: Work) -> None:
    """Nobody has marked the run KILLED in between."""
    run_id = work(0, threads="2")
    work(5, threads="3")
    assert [session.step for session in sessions_of(tracker.get(run_id).data.tags)] == [0, None]
    assert reap(settings, tracker)
    assert [session.step for session in sessions_of(tracker.get(run_id).data.tags)] == [0, 5]
