"""A finished run: which one a name means, its settings and dataset, its trained task, and how good that is."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from assay.config.experiment import ExperimentConfig, parse_experiment
from assay.data.dataset import Dataset
from assay.errors import InputError
from assay.log import Log
from assay.settings import Settings
from assay.tracking import artifacts
from assay.tracking.provenance import PREFIX
from assay.tracking.tracker import Tracker
from assay.usecases.helpers.places import open_or_fetch_dataset
from assay.usecases.helpers.results import ExperimentResults, read_record

if TYPE_CHECKING:
    from assay.task import Picture, Task
    from assay.tracking.run import Run


def resolve_run(target: str, settings: Settings) -> str:
    """The id of a run: `target` itself if it is an id, else the run of that experiment in `results/`.

    Raises:
        InputError: no such experiment, or it has no finished run here.
    """
    if len(target) == 32 and set(target) <= set("0123456789abcdef"):
        return target
    record = ExperimentResults.of(settings.root, target).record
    if not record.exists():
        from assay.config.params import load_params

        load_params(settings.params_file).experiment(target)
        raise InputError(f"experiment {target!r} has no finished run here: run `assay train {target}`")
    run_id: str = read_record(record)["run_id"]
    return run_id


def recorded_config(run_id: str, tracker: Tracker) -> ExperimentConfig:
    """The settings that a run was trained with."""
    return parse_experiment(json.loads(tracker.read_bytes(run_id, artifacts.CONFIG)), f"run {run_id}")


def open_training_dataset(run: Run, settings: Settings, log: Log) -> Dataset:
    """The dataset version that a run was trained on. Raises `InputError` if the version here is another one."""
    name, version = run.data.tags[PREFIX + "dataset"], run.data.tags[PREFIX + "dataset_hash"]
    dataset = open_or_fetch_dataset(name, settings, log)
    if dataset.hash != version:
        raise InputError(
            f"dataset {name!r} is at version {dataset.hash}, but run {run.info.run_id} was trained on {version}: "
            "train on the version here, or restore the old one: `git checkout` its dvc.lock, then `dvc checkout`"
        )
    return dataset


def load_trained(run_id: str, config: ExperimentConfig, dataset: Dataset, tracker: Tracker, folder: Path) -> Task:
    """The trained task of a run, on the CPU. The dataset gives the shapes: classes and channels."""
    from assay.train.prepare import rebuild

    return rebuild(config, dataset, folder, tracker.fetch(run_id, artifacts.WEIGHTS, folder))


def measure(
    run_id: str, config: ExperimentConfig, dataset: Dataset, split: str, tracker: Tracker
) -> tuple[dict[str, float], list[Picture]]:
    """Metrics and pictures of a run's weights on a split of any dataset of the same shape."""
    import torch

    from assay.config.plugin import load_task
    from assay.train.context import LocalContext
    from assay.train.loop import evaluate

    _, source = load_task(config.task.name)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = load_trained(run_id, config, dataset, tracker, folder)
        context = LocalContext(folder, torch.device("cpu"), torch.get_num_threads())
        return evaluate(task, source(config.task, dataset, split), split, config.train.batch_size, context)
