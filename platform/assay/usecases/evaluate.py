"""`assay evaluate`: a finished run's weights on a split that training never saw."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.config.experiment import ExperimentConfig, parse_experiment
from assay.data.dataset import Dataset
from assay.errors import InputError
from assay.files import new_folder, swapped, write_json
from assay.log import Log
from assay.settings import Settings
from assay.tracking.provenance import PREFIX
from assay.tracking.remote import open_tracker
from assay.tracking.tracker import Tracker
from assay.usecases.helpers.places import opened

if TYPE_CHECKING:
    from assay.task import Picture, Task

WEIGHTS = "weights/model.safetensors"


def evaluate(target: str, split: str, settings: Settings, log: Log) -> dict[str, Any]:
    """Evaluate a run, and record metrics and pictures with it; what is recorded already is not computed again.

    Args:
        target: a run id, or the name of an experiment that has been trained.

    Raises:
        InputError: no such run, or the dataset here is not the version that it was trained on.
    """
    tracker = open_tracker(settings)
    run_id = resolve_run(target, settings)
    run = tracker.get(run_id)
    config = recorded_config(run_id, tracker)
    trained_on = run.data.tags[PREFIX + "dataset_hash"]
    dataset = opened(config.data, settings, log)
    if dataset.hash != trained_on:
        raise InputError(
            f"run {run_id} was trained on version {trained_on} of dataset {config.data!r}, and here is {dataset.hash}: "
            "train on the new version, or go back with `git checkout` of its dvc.lock and `dvc checkout`"
        )
    tag = f"{PREFIX}evaluation.{split}"
    if tag in run.data.tags:
        log(f"nothing to evaluate: run {run_id} has its {split} metrics")
        metrics = json.loads(run.data.tags[tag])
    else:
        metrics, pictures = measure(run_id, config, dataset, split, tracker)
        _keep(run_id, split, metrics, pictures, tag, tracker)
    if target != run_id:
        write_json(settings.results_folder(target) / "metrics.json", metrics)
        _write_pictures(run_id, split, settings.results_folder(target) / "pictures", tracker)
    return {"run_id": run_id, "split": split, "metrics": metrics}


def resolve_run(target: str, settings: Settings) -> str:
    """The run that a name means: an id is itself, an experiment is its newest record in `results/`."""
    if len(target) == 32 and set(target) <= set("0123456789abcdef"):
        return target
    record = settings.results_folder(target) / "train.json"
    if not record.exists():
        from assay.config.params import load_params

        load_params(settings.params_file).experiment(target)
        raise InputError(f"experiment {target!r} has no finished run here: run `assay train {target}`")
    run_id: str = json.loads(record.read_text())["run_id"]
    return run_id


def recorded_config(run_id: str, tracker: Tracker) -> ExperimentConfig:
    """The config that a run was trained with."""
    return parse_experiment(json.loads(tracker.read_bytes(run_id, "provenance/config.json")), f"run {run_id}")


def load_weights(run_id: str, config: ExperimentConfig, dataset: Dataset, tracker: Tracker, folder: Path) -> Task:
    """The trained task of a run, on the CPU. Its dataset gives the shapes: classes and channels."""
    from assay.train.prepare import rebuild

    return rebuild(config, dataset, folder, tracker.fetch(run_id, WEIGHTS, folder))


def measure(
    run_id: str, config: ExperimentConfig, dataset: Dataset, split: str, tracker: Tracker
) -> tuple[dict[str, float], list[Picture]]:
    """Metrics of a run's weights on a split of any dataset of the same shape."""
    import torch

    from assay.config.plugin import load_task
    from assay.train.context import LocalContext
    from assay.train.loop import evaluate

    _, source = load_task(config.task.name)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = load_weights(run_id, config, dataset, tracker, folder)
        context = LocalContext(folder, torch.device("cpu"), torch.get_num_threads())
        return evaluate(task, source(config.task, dataset, split), split, config.train.batch_size, context)


def _keep(
    run_id: str, split: str, metrics: dict[str, float], pictures: list[Picture], tag: str, tracker: Tracker
) -> None:
    tracker.log_metrics(run_id, metrics, tracker.record(run_id)["steps"])
    for picture in pictures:
        tracker.log_bytes(run_id, f"pictures/{split}-{picture.name}.png", picture.png)
        if picture.table:
            tracker.log_text(run_id, f"pictures/{split}-{picture.name}.json", json.dumps(list(picture.table)))
    tracker.set_tags(run_id, {tag: json.dumps(metrics)})


def _write_pictures(run_id: str, split: str, folder: Path, tracker: Tracker) -> None:
    """The pictures of an evaluation where DVC and people find them; none of an earlier one stays."""
    with new_folder(folder) as fresh:
        for name in tracker.names(run_id, "pictures"):
            if name.startswith(f"{split}-") and name.endswith(".png"):
                (fresh / name).write_bytes(tracker.read_bytes(run_id, f"pictures/{name}"))
        with swapped(fresh, folder):
            pass
