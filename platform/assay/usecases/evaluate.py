"""`assay evaluate`: how good a finished run is on a split, with pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.files import new_folder, swapped, write_json
from assay.log import Log
from assay.settings import Settings
from assay.tracking import artifacts
from assay.tracking.provenance import PREFIX
from assay.tracking.remote import open_tracker
from assay.tracking.tracker import Tracker
from assay.usecases.helpers.results import ExperimentResults
from assay.usecases.helpers.trained import measure, open_training_dataset, recorded_config, resolve_run

if TYPE_CHECKING:
    from assay.task import Picture


def evaluate(target: str, split: str, settings: Settings, log: Log) -> dict[str, Any]:
    """Evaluate a run, and record metrics and pictures with it. What is already recorded is not computed again.

    Args:
        target: a run id, or the name of a trained experiment, whose `results/` are then written.

    Raises:
        InputError: no such run, or the dataset here is not the version that it was trained on.
    """
    tracker = open_tracker(settings)
    run_id = resolve_run(target, settings)
    run = tracker.get(run_id)
    config = recorded_config(run_id, tracker)
    dataset = open_training_dataset(run, settings, log)
    tag = f"{PREFIX}evaluation.{split}"
    if tag in run.data.tags:
        log(f"nothing to evaluate: run {run_id} already has its {split} metrics")
        metrics = json.loads(run.data.tags[tag])
    else:
        metrics, pictures = measure(run_id, config, dataset, split, tracker)
        _log_evaluation(run_id, split, metrics, pictures, tracker)
        tracker.set_tags(run_id, {tag: json.dumps(metrics)})
    if target != run_id:
        results = ExperimentResults.of(settings.root, target)
        write_json(results.metrics, metrics)
        _write_pictures(run_id, split, results.pictures, tracker)
    return {"run_id": run_id, "split": split, "metrics": metrics}


def _log_evaluation(
    run_id: str, split: str, metrics: dict[str, float], pictures: list[Picture], tracker: Tracker
) -> None:
    tracker.log_metrics(run_id, metrics, tracker.record(run_id)["steps"])
    for picture in pictures:
        tracker.log_bytes(run_id, artifacts.evaluation_picture(split, picture.name), picture.png)
        if picture.table:
            table = json.dumps(list(picture.table))
            tracker.log_text(run_id, artifacts.evaluation_table(split, picture.name), table)


def _write_pictures(run_id: str, split: str, folder: Path, tracker: Tracker) -> None:
    """Write an evaluation's pictures to `results/` in place of those of an earlier one."""
    with new_folder(folder) as fresh:
        for name in tracker.names(run_id, artifacts.PICTURES):
            if name.startswith(f"{split}-") and name.endswith(".png"):
                (fresh / name).write_bytes(tracker.read_bytes(run_id, f"{artifacts.PICTURES}/{name}"))
        with swapped(fresh, folder):
            pass
