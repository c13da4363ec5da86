"""Which processes run flows on this machine: a small file for each, by which the reaper tells the living from the dead.

A process is identified by its id and its start, because ids are used again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from assay.files import write_json
from assay.state import FLOW_PROCESSES, state_folder


@dataclass(frozen=True)
class FlowProcess:
    """A flow run and the process that runs it. `started` is in seconds since 1970."""

    flow_run: str
    pid: int
    started: float
    file: Path

    @property
    def alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            return bool(process.create_time() == self.started and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False

    def forget(self) -> None:
        """Remove its file."""
        self.file.unlink(missing_ok=True)


def register_process(root: Path, flow_run: str) -> None:
    """Record that this process runs the flow run."""
    file = state_folder(root) / FLOW_PROCESSES / f"{flow_run}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    process = psutil.Process(os.getpid())
    write_json(file, {"flow_run": flow_run, "pid": process.pid, "started": process.create_time()})


def registered_processes(root: Path) -> Iterator[FlowProcess]:
    """The processes that registered and were not forgotten, dead or alive."""
    for file in sorted((state_folder(root) / FLOW_PROCESSES).glob("*.json")):
        try:
            found = json.loads(file.read_text())
            yield FlowProcess(found["flow_run"], found["pid"], found["started"], file)
        except (OSError, ValueError, KeyError):  # removed meanwhile, or not ours
            continue
