"""Where a job finds its config and its data on the node that it came to: asked once, before anything is prepared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from assay.config.experiment import ExperimentConfig, moved, parse_experiment
from assay.data.dataset import Dataset, read_card
from assay.settings import Settings
from assay.workers.job import Job


@dataclass(frozen=True)
class Arrival:
    """What a training needs of its node: the config with the files as they are called here, and the dataset."""

    config: ExperimentConfig
    dataset: Dataset


def arrive(job: Job, tell: Callable[[str], None]) -> Arrival:
    """What the job needs, here; a dataset that this node lacks is fetched.

    Raises:
        InputError: the dataset cannot be fetched as the project or this node is set up.
        WorkError: the remote lacks it or has damaged files of it, or the disk is full.
        Unavailable: the remote does not answer.
    """
    if not job.project:  # workers are on the machine that the job was made on
        config, folder = parse_experiment(job.config, "config"), Path(job.dataset)
    else:
        from assay.storage.dataset_fetch import fetch_dataset

        made = Path(job.project)
        project = made if (made / "params.yaml").exists() else Path.cwd()  # else the job's package
        config = parse_experiment(moved(job.config, job.project, str(project)), "config")
        folder = fetch_dataset(Settings(project=project), config.data, job.dataset_hash, tell)
    return Arrival(config, Dataset(folder, read_card(folder, config.data), job.dataset_hash))
