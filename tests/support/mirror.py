"""A run's folder here and its copy in object storage, in tests."""

from __future__ import annotations

from pathlib import Path

import torch

from assay.log import Log
from assay.storage.attempts import lease_name, of
from assay.storage.object_store import ObjectStore
from assay.storage.run_mirror import Receiver, Sender
from assay.train.checkpoint import Checkpoints
from assay.train.folder import CHECKPOINTS, SPOOL
from assay.train.spool import Spool, read_spool


def silent(_: str) -> None: ...


def save(folder: Path, *steps: int) -> None:
    checkpoints = Checkpoints(folder / CHECKPOINTS, silent)
    for step in steps:
        checkpoints.save(step, {"weights": {"w": torch.full((3,), float(step))}})


def loaded(folder: Path) -> tuple[int, float] | None:
    found = Checkpoints(folder / CHECKPOINTS, silent).load()
    return None if found is None else (found[0], float(found[1]["weights"]["w"][0]))


def record(folder: Path, *steps: int) -> None:
    spool = Spool(folder / SPOOL)
    for step in steps:
        spool.append(step, {"train/loss": step / 7})
    spool.close()


def steps(folder: Path) -> list[int]:
    return [found.step for found, _ in read_spool(folder / SPOOL, 0)]


def sender(bucket: str, folder: Path, number: int = 1, log: Log = silent, writer: bool = True) -> Sender:
    """One that has begun, of the process that is the `number`-th to own the run."""
    made = Sender(ObjectStore(bucket), attempt(number), folder, log, writer)
    made.begin()
    return made


def attempt(number: int) -> str:
    return f"{lease_name(number)}-0001-x"


def place(bucket: str, number: int = 1) -> ObjectStore:
    return of(ObjectStore(bucket), attempt(number))


def following(bucket: str, folder: Path, number: int = 1) -> Receiver:
    receiver = Receiver(ObjectStore(bucket), folder, silent)
    receiver.follow(attempt(number))
    return receiver
