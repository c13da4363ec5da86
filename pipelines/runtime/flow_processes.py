"""Which processes run flows: a small file for each, by which the reaper tells the living from the dead.

A checkout may be on a file system that several machines share. Each tells of its own processes only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from assay.files import load_json, write_json
from assay.owner import Life, Owner
from assay.state import FLOW_PROCESSES, state_folder


@dataclass(frozen=True)
class FlowProcess:
    """A flow run and the process that runs it."""

    flow_run: str
    owner: Owner
    file: Path

    @property
    def pid(self) -> int:
        return self.owner.pid

    @property
    def life(self) -> Life:
        """`elsewhere` is for its own machine to say, or for the automation that misses its heartbeats."""
        return self.owner.life

    @property
    def alive(self) -> bool:
        """Whether it is a process of this machine that lives."""
        return self.life == "alive"

    def forget(self) -> None:
        """Remove its file."""
        self.file.unlink(missing_ok=True)


def register_process(root: Path, flow_run: str) -> None:
    """Record that this process runs the flow run."""
    file = state_folder(root) / FLOW_PROCESSES / f"{flow_run}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"flow_run": flow_run, "owner": Owner.here().plain()})


def registered_processes(root: Path) -> Iterator[FlowProcess]:
    """The processes that registered and were not forgotten, dead or alive, here or elsewhere."""
    for file in sorted((state_folder(root) / FLOW_PROCESSES).glob("*.json")):
        try:
            found = load_json(file.read_bytes())
            flow_run, owner = str(found["flow_run"]), Owner.read(found["owner"])
        except (OSError, ValueError, KeyError, TypeError):  # removed meanwhile, or not ours
            continue
        if owner is not None:
            yield FlowProcess(flow_run, owner, file)
