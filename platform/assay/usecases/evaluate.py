"""`assay evaluate`: how good a finished run is on a split, with pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.files import new_folder, parse_json, swapped, write_json
from assay.log import Log
from assay.settings import Settings
from assay.tracking import artifacts
from assay.tracking.evaluations import METRICS, evaluation_tags, measuring_with
from assay.tracking.known_store import known
from assay.tracking.remote import open_tracker
from assay.tracking.tracker import Tracker
from assay.tracking.turns import turn
from assay.usecases.helpers.results import ExperimentResults
from assay.usecases.helpers.stage import changed
from assay.usecases.helpers.trained import (
    as_trained,
    measure,
    open_training_dataset,
    recorded_config,
    require_trained,
    resolve_run,
)

if TYPE_CHECKING:
    from assay.task import Picture
    from assay.tracking.run import Run


def evaluate(target: str, split: str, settings: Settings, log: Log) -> dict[str, Any]:
    """Evaluate a run, and record metrics and pictures with it. What is already recorded is not computed again.

    Args:
        target: a run id, or the name of a trained experiment, whose `results/` are then written.

    Raises:
        InputError: no such run, it has no weights, or the dataset version that it was trained on is nowhere.
        WorkError: its weights are not the ones that it recorded, or the experiment was trained anew meanwhile.
    """
    tracker = known(open_tracker(settings))
    run_id = resolve_run(target, settings)
    run = tracker.get(run_id)
    require_trained(run, "evaluated", tracker)
    dataset = open_training_dataset(run, settings, log)
    tag = METRICS + split
    if tag in run.data.tags:
        log(f"nothing to evaluate: run {run_id} already has its {split} metrics")
    else:
        config = recorded_config(run_id, tracker)
        measured = measuring_with(settings.root, config.task.name)
        metrics, pictures = measure(run, config, as_trained(run, dataset, tracker), split, tracker)
        with turn(tracker, f"run {run_id}", log) as held:
            if tag not in tracker.get(run_id).data.tags:  # else another evaluation was faster
                _log_pictures(run_id, split, pictures, tracker)
                held.require()
                tracker.set_tags(run_id, evaluation_tags(split, metrics, measured))
        run = tracker.get(run_id)
    metrics = parse_json(run.data.tags[tag], f"run {run_id}: its tag {tag}", "remove the tag, and evaluate again")
    _log_points(run, metrics, tracker)
    if target != run_id:
        if resolve_run(target, settings) != run_id:
            raise changed(f"the run of experiment {target!r}")
        results = ExperimentResults.of(settings.root, target)
        write_json(results.metrics, metrics)
        _write_pictures(run_id, split, results.pictures, tracker)
    return {"run_id": run_id, "split": split, "metrics": metrics}


def _log_pictures(run_id: str, split: str, pictures: list[Picture], tracker: Tracker) -> None:
    for picture in pictures:
        tracker.log_bytes(run_id, artifacts.evaluation_picture(split, picture.name), picture.png)
        if picture.table:
            table = json.dumps(list(picture.table))
            tracker.log_text(run_id, artifacts.evaluation_table(split, picture.name), table)


def _log_points(run: Run, metrics: dict[str, float], tracker: Tracker) -> None:
    """Show the recorded metrics as MLflow's own. Their time is the run's end: of equal points MLflow keeps one."""
    missing = {name: value for name, value in metrics.items() if repr(run.data.metrics.get(name)) != repr(value)}
    if missing:
        assert run.info.end_time is not None
        step = tracker.record(run.info.run_id)["steps"]
        tracker.log_points(run.info.run_id, [(name, value, run.info.end_time, step) for name, value in missing.items()])


def _write_pictures(run_id: str, split: str, folder: Path, tracker: Tracker) -> None:
    """Write an evaluation's pictures to `results/` in place of those of an earlier one."""
    with new_folder(folder) as fresh:
        for name in tracker.names(run_id, artifacts.PICTURES):
            if name.startswith(f"{split}-") and name.endswith(".png"):
                (fresh / name).write_bytes(tracker.read_bytes(run_id, f"{artifacts.PICTURES}/{name}"))
        with swapped(fresh, folder):
            pass
