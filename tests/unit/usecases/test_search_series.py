"""The course of a search is recorded once, however many sessions it takes."""

from __future__ import annotations

from pathlib import Path

from assay.tracking.tracker import Tracker
from assay.tune.search import Search
from assay.usecases.helpers.search_outputs import _log_progress
from assay.usecases.helpers.search_snapshot import TrialCurves, take_snapshot
from tests.support.searching import MIXED, config, drive, search
from tests.unit.tracking.test_runs import provenance

METRIC = "val/accuracy"


def test_each_session_adds_its_own_points(tracker: Tracker, tmp_path: Path) -> None:
    run_id = tracker.create("series", provenance())
    running = search(config("random", MIXED))
    for session in range(3):
        drive(running, 4, order=session)
        running.next()  # one is under way when the session ends
        record(running, run_id, tracker, tmp_path)
        record(running, run_id, tracker, tmp_path)  # killed right after it, and continued
    best: dict[int, float] = {}
    for number, trial in enumerate(running.ended, 1):
        scores = [*list(best.values())[-1:], *([trial.metrics[METRIC]] if trial.status == "finished" else [])]
        best |= {number: max(scores)} if scores else {}
    points = tracker._client.get_metric_history(run_id, METRIC)
    assert [(point.step, point.value) for point in points] == list(best.items())
    assert len(points) > 6
    tracker.set_status(run_id, "FINISHED")


def record(running: Search, run_id: str, tracker: Tracker, folder: Path) -> None:
    _log_progress(take_snapshot("s", run_id, running, {}, {}, TrialCurves(folder), {}), run_id, running, tracker)
