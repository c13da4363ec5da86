"""Which processes run flows on this machine: a small file each, by which the reaper tells the living from the dead.

A process is named by its id and its start, for ids are used again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from assay.files import write_json
from assay.state import FLOW_PROCESSES, state_folder


@dataclass(frozen=True)
class Record:
    """A flow run and the process that runs it."""

    flow_run: str
    pid: int
    started: float
    file: Path

    @property
    def alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            return process.create_time() == self.started and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def remove(self) -> None:
        self.file.unlink(missing_ok=True)


def write(root: Path, flow_run: str) -> Record:
    """Say that this process runs the flow run."""
    file = state_folder(root) / FLOW_PROCESSES / f"{flow_run}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    process = psutil.Process(os.getpid())
    record = Record(flow_run, process.pid, process.create_time(), file)
    write_json(file, {"flow_run": flow_run, "pid": record.pid, "started": record.started})
    return record


def read_all(root: Path) -> Iterator[Record]:
    import json

    for file in sorted((state_folder(root) / FLOW_PROCESSES).glob("*.json")):
        try:
            told = json.loads(file.read_text())
            yield Record(told["flow_run"], told["pid"], told["started"], file)
        except (OSError, ValueError, KeyError):  # removed meanwhile, or not ours
            continue
