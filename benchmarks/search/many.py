"""Sixteen searches that record their trials in one SQLite store at a time: no error, and no point lost."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

from benchmarks.common import figure, fresh_clone, run

SEARCHES = 16
POINTS = 50


def record(clone: str, number: int, trials: int, results: Any) -> None:
    """One search's record of `trials`, each with its spool, as the search's own process writes it."""
    from assay.config.params import load_params
    from assay.data.dataset import open_dataset
    from assay.program import start_program
    from assay.settings import Settings
    from assay.tracking.provenance import collect
    from assay.tracking.tracker import Tracker
    from assay.tracking.trials import Entry, TrialRecorder
    from assay.train.folder import SPOOL
    from assay.train.spool import Spool

    start_program()
    settings = Settings(project=Path(clone))
    config = load_params(settings.params_file).experiment("digits")
    dataset = open_dataset(settings.root, config.data, settings.dataset_folder(config.data))
    base = collect(settings.root, "digits", config, dataset, {"world_size": "1", "threads": "1", "device": "cpu"})
    tracker, warnings = Tracker(settings), []
    with tracker.turn():
        search_id = tracker.begin("digits", base, name=f"search-{number}")
    recorder = TrialRecorder(tracker, search_id, "digits", lambda _: base, warnings.append)
    for trial in range(trials):
        folder = settings.runs / search_id / "trials" / f"{trial:04d}"
        recorder.put(Entry(trial, folder, base.config))
        spool = Spool(folder / SPOOL)
        for step in range(POINTS):
            spool.append(step, {"train/loss": 1.0 / (step + 1), "val/accuracy": step / POINTS})
        spool.close()
        recorder.put(Entry(trial, folder, base.config, status="finished"))
    error = ""
    try:
        recorder.close()
    except Exception as failure:
        error = str(failure)
    results.put((search_id, warnings, error))


def main(trials: str = "20") -> None:
    """`trials` of each of sixteen searches."""
    with fresh_clone() as clone:
        run(clone, "dvc", "repro", "-q", "data@digits")
        context = multiprocessing.get_context("spawn")
        results = context.Queue()
        began = time.monotonic()
        processes = [
            context.Process(target=record, args=(str(clone), number, int(trials), results))
            for number in range(SEARCHES)
        ]
        for process in processes:
            process.start()
        done = [results.get() for _ in processes]
        seconds = time.monotonic() - began
        figure("many_searches", searches=SEARCHES, trials=SEARCHES * int(trials), seconds=round(seconds, 1),
               errors=sum(bool(error) for _, _, error in done), waits=sum(len(warnings) for _, warnings, _ in done),
               lost=lost(clone, [search_id for search_id, _, _ in done], int(trials)))  # fmt: skip


def lost(clone: Path, searches: list[str], trials: int) -> int:
    """Points that should be in the store and are not, or are there twice."""
    from assay.settings import Settings
    from assay.tracking.tracker import Tracker

    tracker = Tracker(Settings(project=clone))
    missing = 0
    for search_id in searches:
        runs = tracker.children("digits", search_id)
        missing += abs(trials - len(runs)) * 2 * POINTS
        for run_ in runs:
            for name in ("train/loss", "val/accuracy"):
                missing += abs(POINTS - len(tracker._client.get_metric_history(run_.info.run_id, name)))
    return missing
