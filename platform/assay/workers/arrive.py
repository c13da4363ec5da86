"""Finds the config and the dataset of an assignment on the node that it has reached, before anything is prepared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from assay.config.experiment import ExperimentConfig, moved, parse_experiment
from assay.data.dataset import Dataset
from assay.errors import WorkError
from assay.inputs import Inputs
from assay.log import Log
from assay.settings import Settings
from assay.storage.dataset_versions import open_version
from assay.workers.assignment import Assignment


@dataclass(frozen=True)
class Arrival:
    """What a training takes from its node: the config, with its files as they are named here, and the dataset."""

    config: ExperimentConfig
    dataset: Dataset


def require_inputs(assignment: Assignment, config: ExperimentConfig) -> None:
    """Make sure that this process trains with what the run is recorded with. Call it when all is imported and read.

    Code may be edited, files replaced and packages upgraded while Ray starts, and before each restart of a worker.

    Raises:
        WorkError: something is different; nothing has been trained with it.
    """
    here = Inputs.here(Path(assignment.project), config.task.name, config.task.files).plain()
    different = [what for what, recorded in assignment.inputs.items() if here[what] != recorded]
    if different:
        raise WorkError(
            f"{' and '.join(different)} is not what the run is recorded with: it has changed since the command was "
            "given, or differs on this node: restore it and give the same command again, or train anew"
        )


def arrive(assignment: Assignment, log: Log) -> Arrival:
    """Find what the assignment names, here: the dataset by its content, fetched if this node lacks it.

    Raises:
        InputError: the dataset version is nowhere, or settings of the project or of this node do not allow fetching it.
        WorkError: the remote lacks the dataset or has damaged files of it, or the disk is full.
        Unavailable: the remote does not answer.
    """
    origin = Path(assignment.project)
    project = origin if (origin / "params.yaml").exists() else Path.cwd()  # else the unpacked Ray job
    config = parse_experiment(moved(assignment.config, assignment.project, str(project)), "config")
    return Arrival(config, open_version(Settings(project=project), config.data, assignment.dataset_hash, log))
