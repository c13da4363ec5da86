"""Finds the config and the dataset of an assignment on the node that it has reached, before anything is prepared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from assay.config.experiment import ExperimentConfig, moved, parse_experiment
from assay.data.dataset import Dataset, read_card
from assay.log import Log
from assay.settings import Settings
from assay.workers.assignment import Assignment


@dataclass(frozen=True)
class Arrival:
    """What a training takes from its node: the config, with its files as they are named here, and the dataset."""

    config: ExperimentConfig
    dataset: Dataset


def arrive(assignment: Assignment, log: Log) -> Arrival:
    """Find what the assignment names, here; fetch the dataset if this node lacks it.

    Raises:
        InputError: the settings of the project or of this node do not allow fetching the dataset.
        WorkError: the remote lacks the dataset or has damaged files of it, or the disk is full.
        Unavailable: the remote does not answer.
    """
    if not assignment.project:  # the workers share the machine of the process that started them
        config, folder = parse_experiment(assignment.config, "config"), Path(assignment.dataset)
    else:
        from assay.storage.dataset_fetch import fetch_dataset

        origin = Path(assignment.project)
        project = origin if (origin / "params.yaml").exists() else Path.cwd()  # else the unpacked Ray job
        config = parse_experiment(moved(assignment.config, assignment.project, str(project)), "config")
        folder = fetch_dataset(Settings(project=project), config.data, assignment.dataset_hash, log)
    return Arrival(config, Dataset(folder, read_card(folder, config.data), assignment.dataset_hash))
