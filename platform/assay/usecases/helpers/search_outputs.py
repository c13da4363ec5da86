"""What a search leaves: its record, pictures, tables and page, in MLflow and in `results/searches/`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assay.config.schema import resolved
from assay.files import write_json
from assay.report.search import SearchStory, TrialRow, front, table_csv
from assay.report.search_page import page, pictures
from assay.tracking.provenance import PREFIX
from assay.tracking.tracker import RECORD, Tracker
from assay.train.folder import CHECKPOINTS
from assay.tune.search import Search
from assay.tune.trial import WEIGHTS, trial_folder
from assay.usecases.helpers import outputs
from assay.usecases.helpers.search_context import SearchContext, network_costs

PAGE = "search.html"
TRIALS = "trials.csv"


def facts(context: SearchContext) -> dict[str, str]:
    """What stands above a search's tables."""
    tags, budget = context.base.tags, context.config.budget
    limits = {name: value for name, value in resolved(budget).items() if value is not None}
    found = {
        "budget": ", ".join(f"{value:g} {name}" for name, value in limits.items()),
        "dataset": f"{tags['dataset']} {tags['dataset_hash']}",
        "commit": tags["commit"][:12] + (" with changes" if tags["dirty"] == "true" else ""),
        "slots": f"{context.plan.parallel} at a time, {context.plan.threads} threads each, on {context.plan.device}",
    }
    if context.config.limits:
        found["limits"] = ", ".join(f"{name} ≤ {most:g}" for name, most in context.config.limits.items())
    return found


def baseline(context: SearchContext) -> dict[str, float]:
    """What the experiment as it is has reached on this dataset, and costs; nothing where it was not trained here."""
    path = context.settings.results_folder(context.config.experiment) / "train.json"
    trained = json.loads(path.read_text()) if path.exists() else {}
    if trained.get("dataset", {}).get("hash") != context.dataset.hash:
        return {}
    return {**trained["metrics"], **(network_costs(context.experiment, context) if context.costs else {})}


def seconds_left(search: Search, parallel: int, spent: float, clock: float | None) -> float | None:
    """An estimate from the trials so far, no more than the clock allows; None before the first has ended."""
    budget = search.config.budget
    done = [trial for trial in search.ended if trial.status != "over"]
    guess = [] if clock is None else [max(clock, 0.0)]
    if done and budget.trials is not None:
        mean = sum(trial.seconds for trial in done) / len(done)
        guess.append(max(budget.trials - len(done), 0) * mean / parallel)
    if done and budget.epochs is not None and search.epochs_trained:
        guess.append(max(budget.epochs - search.epochs_trained, 0) * spent / search.epochs_trained)
    return min(guess) if guess else None


def record(
    story: SearchStory, context: SearchContext, search: Search, status: str, reason: str, seconds: float
) -> dict[str, Any]:
    """What `assay tune` prints: `best` is the first of `front`, by the first objective."""
    best = front(story.trials, story.objectives)
    return {
        "search_id": story.search_id,
        "search": context.name,
        "experiment": context.config.experiment,
        "status": status,
        "reason": reason,
        "objectives": dict(story.objectives),
        "trials": len(search.counted),
        "completed": story.count("finished", "stopped"),
        "repeated": search.repeated,
        "finished": story.count("finished"),
        "stopped": story.count("stopped"),
        "failed": story.count("failed"),
        "over": story.count("over"),
        "epochs": round(search.epochs_trained, 4),
        "seconds": round(seconds, 2),
        "best": _found(best[0]),
        "front": [_found(row) for row in best],
        "dataset": {"name": context.experiment.data, "hash": context.dataset.hash},
        "budget": resolved(context.config.budget),
    }


def _found(row: TrialRow) -> dict[str, Any]:
    return {"run_id": row.run_id, "trial": row.number, "config": dict(row.values), "metrics": dict(row.metrics)}


def keep(
    story: SearchStory,
    record: Mapping[str, Any],
    context: SearchContext,
    folder: Path,
    search: Search,
    tracker: Tracker,
) -> None:
    """Hand the pictures, tables and the page to MLflow, and the weights of the front; the record last."""
    run_id = story.search_id
    drawn = pictures(story)
    for name, png in drawn.items():
        tracker.log_bytes(run_id, f"pictures/{name}.png", png)
    tracker.log_bytes(run_id, TRIALS, table_csv(story))
    tracker.log_text(run_id, PAGE, page(story, drawn))
    _log_progress(story, run_id, tracker)
    for row in front(story.trials, story.objectives):
        _keep_trial(row, record, context, folder, search, tracker)
    tracker.client.set_tag(run_id, f"{PREFIX}best", record["best"]["run_id"])
    tracker.log_text(run_id, RECORD, json.dumps(record, indent=2))
    if record["status"] == "FINISHED" and not search.continues:
        for at in (folder / "trials").glob("*"):
            shutil.rmtree(at / CHECKPOINTS, ignore_errors=True)


def _log_progress(story: SearchStory, run_id: str, tracker: Tracker) -> None:
    """The best so far, by the number of trials, under the objective's own name: comparable with any run's metric."""
    best: list[TrialRow] = []
    points: list[tuple[int, float]] = []
    metric = story.objective
    for number, row in enumerate(story.trials, 1):
        first = {metric: story.objectives[metric]}
        best = front([*best, row], first)
        if best:
            points.append((number, best[0].metrics[metric]))
    tracker.log_series(run_id, metric, points)


def _keep_trial(
    row: TrialRow, record: Mapping[str, Any], context: SearchContext, folder: Path, search: Search, tracker: Tracker
) -> None:
    """Make a trial of the front a run like any other: with weights, curves and a record, to evaluate and register."""
    trial, at = search.trials[row.number], trial_folder(folder, row.number)
    if not (at / WEIGHTS).exists():  # handed over by an earlier session
        return
    tracker.log_file(row.run_id, "weights", at / WEIGHTS)
    for name, content in outputs.curves(at):
        tracker.log_bytes(row.run_id, f"pictures/{name}", content)
    own = {
        "run_id": row.run_id,
        "status": "FINISHED",
        "metrics": {name: value for name, value in row.metrics.items() if name.startswith("val/")},
        "steps": trial.outcome["steps"],
        "seconds": trial.seconds,
        "weights_sha256": trial.outcome["weights_sha256"],
        "dataset": record["dataset"],
        "resumed_from": None,
        "facts": trial.outcome["task"],
    }
    config = resolved(context.space.apply(context.experiment, row.values))
    tracker.log_text(row.run_id, "provenance/config.json", json.dumps(config, indent=2))
    tracker.copy_provenance(record["search_id"], row.run_id)
    tracker.log_text(row.run_id, RECORD, json.dumps(own, indent=2))
    (at / WEIGHTS).unlink()


def write(folder: Path, record: Mapping[str, Any], tracker: Tracker) -> None:
    """The outputs of the DVC stage `search`: the same for the same search, whoever asks and however often."""
    folder.mkdir(parents=True, exist_ok=True)
    passing = ("seconds", "status")
    write_json(folder / "search.json", {name: value for name, value in record.items() if name not in passing})
    for name in (PAGE, TRIALS):
        (folder / name).write_bytes(tracker.read_bytes(record["search_id"], name))
