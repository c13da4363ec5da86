"""What a search records: pictures, tables, a page, the trials of its front and the search's own record."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assay.config.schema import resolved
from assay.log import counted
from assay.redaction import redact_known
from assay.report.search import SearchSnapshot, TrialRow, front, table_csv
from assay.report.search_page import page, pictures
from assay.tracking import artifacts
from assay.tracking.provenance import PREFIX
from assay.tracking.sessions import session_notes, sessions_of, sessions_record
from assay.tracking.tracker import Tracker
from assay.train.folder import CHECKPOINTS
from assay.tune.search import Search
from assay.tune.trial import WEIGHTS, trial_folder
from assay.usecases.helpers.results import ExperimentResults
from assay.usecases.helpers.search_context import SearchContext, network_costs


def page_header(context: SearchContext, recorded: Mapping[str, str]) -> dict[str, str]:
    """What the page shows above the tables. `recorded` are the tags of the search's run."""
    tags, budget, plan = context.base.tags, context.config.budget, context.plan
    limits = {name: value for name, value in resolved(budget).items() if value is not None}
    header = {
        "budget": ", ".join(f"{value:g} {name}" for name, value in limits.items()),
        "dataset": f"{tags['dataset']} {tags['dataset_hash']}",
        "commit": tags["commit"][:12] + (" with changes" if tags["dirty"] == "true" else ""),
        "slots": f"{plan.parallel} at a time, {counted(plan.threads, 'thread')} each, on {plan.device}",
    }
    if context.config.limits:
        header["limits"] = ", ".join(f"{name} ≤ {most:g}" for name, most in context.config.limits.items())
    if notes := session_notes(recorded):
        header["sessions"] = "; ".join(notes)
    return header


def measure_baseline(context: SearchContext) -> dict[str, float]:
    """The metrics and costs of the unchanged experiment on this dataset; empty if it was not trained here."""
    results = ExperimentResults.of(context.settings.root, context.config.experiment)
    if not results.record.exists():
        return {}
    trained = results.read(results.record, needs=("dataset", "metrics"))
    if trained["dataset"]["hash"] != context.dataset.hash:
        return {}
    return {**trained["metrics"], **(network_costs(context.experiment, context) if context.costs else {})}


def seconds_left(search: Search, parallel: int, spent: float, clock: float | None) -> float | None:
    """An estimate from the trials so far, at most `clock`; None before the first trial has ended."""
    budget = search.config.budget
    done = [trial for trial in search.ended if trial.status != "over"]
    guesses = [] if clock is None else [max(clock, 0.0)]
    if done and budget.trials is not None:
        mean = sum(trial.seconds for trial in done) / len(done)
        guesses.append(max(budget.trials - len(done), 0) * mean / parallel)
    if done and budget.epochs is not None and search.epochs_trained:
        guesses.append(max(budget.epochs - search.epochs_trained, 0) * spent / search.epochs_trained)
    return min(guesses) if guesses else None


def search_record(
    snapshot: SearchSnapshot, context: SearchContext, search: Search, status: str, reason: str, seconds: float
) -> dict[str, Any]:
    """What `assay tune` prints. `best` is the first of `front`, by the first objective."""
    best = front(snapshot.trials, snapshot.objectives)
    return {
        "search_id": snapshot.search_id,
        "search": context.name,
        "experiment": context.config.experiment,
        "status": status,
        "reason": reason,
        "objectives": dict(snapshot.objectives),
        "trials": len(search.counted),
        "completed": snapshot.count("finished", "stopped"),
        "repeated": search.repeated,
        "finished": snapshot.count("finished"),
        "stopped": snapshot.count("stopped"),
        "failed": snapshot.count("failed"),
        "over": snapshot.count("over"),
        "epochs": round(search.epochs_trained, 4),
        "seconds": round(seconds, 2),
        "best": _summary(best[0]),
        "front": [_summary(row) for row in best],
        "dataset": {"name": context.experiment.data, "hash": context.dataset.hash},
        "budget": resolved(context.config.budget),
    }


def _summary(row: TrialRow) -> dict[str, Any]:
    return {"run_id": row.run_id, "trial": row.number, "config": dict(row.values), "metrics": dict(row.metrics)}


def log_search(
    snapshot: SearchSnapshot,
    record: Mapping[str, Any],
    context: SearchContext,
    folder: Path,
    search: Search,
    tracker: Tracker,
) -> None:
    """Record the pictures, the tables, the page, the trials of the front and, last, the record."""
    run_id = snapshot.search_id
    drawn = pictures(snapshot)
    for name, png in drawn.items():
        tracker.log_bytes(run_id, artifacts.search_picture(name), png)
    tracker.log_bytes(run_id, artifacts.TRIALS, table_csv(snapshot))
    tracker.log_text(run_id, artifacts.PAGE, page(snapshot, drawn))
    _log_progress(snapshot, run_id, search, tracker)
    for row in front(snapshot.trials, snapshot.objectives):
        _log_trial(row, record, context, folder, search, tracker)
    tracker.set_tags(run_id, {f"{PREFIX}best": record["best"]["run_id"]})
    tracker.log_text(run_id, artifacts.RECORD, json.dumps(record, indent=2))
    if record["status"] == "FINISHED" and not search.continues:
        for at in (folder / "trials").glob("*"):
            shutil.rmtree(at / CHECKPOINTS, ignore_errors=True)


def _log_progress(snapshot: SearchSnapshot, run_id: str, search: Search, tracker: Tracker) -> None:
    """Record the best value so far by number of ended trials, under the objective's name, as in any run.

    Trials count in the order in which they ended, which a later session does not change: it adds its own points.
    """
    metric = snapshot.objective
    first, rows = {metric: snapshot.objectives[metric]}, {row.number: row for row in snapshot.trials}
    recorded = tracker.series(run_id, metric)
    best: list[TrialRow] = []
    points: dict[int, float] = {}
    for number, trial in enumerate(search.ended, 1):
        best = front([*best, rows[trial.number]], first)
        if best and number not in recorded:
            points[number] = best[0].metrics[metric]
    now = time.time_ns() // 1_000_000
    tracker.log_points(run_id, [(metric, value, now, number) for number, value in points.items()])


def _log_trial(
    row: TrialRow, record: Mapping[str, Any], context: SearchContext, folder: Path, search: Search, tracker: Tracker
) -> None:
    """Give a trial of the front what any run has, so that it can be evaluated and registered."""
    trial, at = search.trials[row.number], trial_folder(folder, row.number)
    if not (at / WEIGHTS).exists():  # recorded by an earlier session
        return
    tracker.log_file(row.run_id, artifacts.WEIGHTS_FOLDER, at / WEIGHTS)
    tracker.log_curves(row.run_id, at)
    tags = tracker.get(row.run_id).data.tags
    own = {
        "run_id": row.run_id,
        "status": "FINISHED",
        "metrics": {name: value for name, value in row.metrics.items() if name.startswith("val/")},
        "steps": trial.outcome["steps"],
        "seconds": trial.seconds,
        "weights_sha256": trial.outcome["weights_sha256"],
        "dataset": record["dataset"],
        "resumed_from": sessions[-1].step or None if (sessions := sessions_of(tags)) else None,
        "facts": trial.outcome["task"],
        **sessions_record(tags),
    }
    config = redact_known(resolved(context.space.apply(context.experiment, row.values)))
    tracker.log_text(row.run_id, artifacts.CONFIG, json.dumps(config, indent=2))
    tracker.copy_provenance(record["search_id"], row.run_id)
    tracker.log_text(row.run_id, artifacts.RECORD, json.dumps(own, indent=2))
    (at / WEIGHTS).unlink()
