"""A training as plain data: what a process needs to begin it, wherever that process is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Job:
    """All that a worker needs, as plain data: it travels between processes and machines.

    Attributes:
        config: a resolved `ExperimentConfig`.
        dataset: folder of the dataset version, and its `hash`.
        folder: the run's folder, shared by all workers.
        compiled: whether networks go through `torch.compile`.
        project: the project's folder where the job was made, if workers may be on other nodes.
        store: the run's address in object storage, where its folder is not shared.
        attempt: sets the folders of this attempt apart from those of earlier ones on the same node.
        looks: parts of the first epoch after which the validation split is looked at.
    """

    run_id: str
    config: Mapping[str, Any]
    dataset: str
    dataset_hash: str
    folder: str
    threads: int
    gpu: bool
    compiled: bool = False
    project: str = ""
    store: str = ""
    attempt: str = ""
    looks: tuple[float, ...] = ()

    def plain(self) -> dict[str, Any]:
        return asdict(self)
