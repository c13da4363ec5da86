"""A training as plain data: all that a process needs to begin it, on any machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Assignment:
    """What a worker is to train, as plain data: it travels between processes and machines.

    Attributes:
        config: a resolved `ExperimentConfig`.
        project: the project's folder on the machine that starts the training.
        dataset_hash: the dataset version, which each process opens and verifies by itself.
        folder: the run's folder, shared by all workers.
        inputs: what the run is recorded with, to compare with what each process has: see `Inputs.plain`.
        compiled: whether networks go through `torch.compile`.
        cluster: whether workers may be on other nodes.
        store: the run's address in object storage, if nodes do not share its folder.
        session: the number of the run's session that starts the training.
        attempt: the name of this attempt, which keeps what it writes apart from what others write; before it has one,
            how the names begin that the owner of the run's lease gives.
        validate_at: parts of the first epoch after which the training validates.
    """

    run_id: str
    config: Mapping[str, Any]
    project: str
    dataset_hash: str
    folder: str
    threads: int
    gpu: bool
    inputs: Mapping[str, str]
    compiled: bool = False
    cluster: bool = False
    store: str = ""
    session: int = 1
    attempt: str = ""
    validate_at: tuple[float, ...] = ()

    def plain(self) -> dict[str, Any]:
        return asdict(self)
