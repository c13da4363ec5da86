"""The processes of a project's setup: found by the mark in their environment, even if no supervisor lives."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assay.log import Log
from assay.services.net import MARK
from assay.services.ray import ray_folder
from assay.services.running import read_status
from assay.services.server import alive
from assay.settings import Settings
from assay.state import state_folder
from assay.workers.joined import joined

if TYPE_CHECKING:
    import psutil

SAVE_SECONDS = 60.0
"""How long a training may take to save its checkpoint."""
_END_SECONDS = 5.0
_FLOW_RUN = "PREFECT__FLOW_RUN_ID"
_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


@dataclass(frozen=True)
class Workload:
    """A flow run or a job that runs here: its name, its first process, and those below."""

    name: str
    first: psutil.Process
    below: tuple[psutil.Process, ...]

    def ask_to_end(self) -> None:
        """As a cancellation does: a flow run's first process passes the signal on; a job's whole session gets it."""
        with suppress(OSError):
            if self.name.startswith("job"):
                os.killpg(self.first.pid, signal.SIGTERM)
            else:
                os.kill(self.first.pid, signal.SIGTERM)

    def is_running(self) -> bool:
        return any(map(alive, (self.first, *self.below)))


def of_setup(root: Path) -> list[psutil.Process]:
    """All processes of the project's setup, except this one and those above it."""
    import psutil

    living = [process for process in psutil.process_iter() if alive(process)]
    below: dict[int, list[psutil.Process]] = {}
    for process in living:
        with suppress(psutil.Error):
            below.setdefault(process.ppid(), []).append(process)
    me = psutil.Process()
    mine = {me.pid, *(parent.pid for parent in me.parents())}
    found: dict[int, psutil.Process] = {}
    waiting = [process for process in living if process.pid not in mine and _belongs(process, root)]
    while waiting:
        process = waiting.pop()
        if process.pid not in found and process.pid not in mine:
            found[process.pid] = process
            waiting += below.get(process.pid, [])
    return list(found.values())


def _belongs(process: psutil.Process, root: Path) -> bool:
    """By the mark; one of Ray's processes that wrote its title over its environment, by the files that it has open."""
    environment = _environment(process)
    if environment:
        return environment.get(MARK) == str(root)
    folder = ray_folder(state_folder(root))
    with suppress(Exception):  # gone meanwhile, or another user's
        return any(Path(file.path).is_relative_to(folder) for file in process.open_files())
    return False


def _environment(process: psutil.Process) -> dict[str, str]:
    with suppress(Exception):  # gone meanwhile, or another user's
        return dict(process.environ())
    return {}


def find_workloads(root: Path) -> list[Workload]:
    """The flow runs and jobs that run in the setup now, and the trainings of a terminal that have joined its Ray."""
    import psutil

    address = read_status(state_folder(root)).get("addresses", {}).get("ray")
    found = []
    for run_id, pid in joined(Settings(project=root).runs, address).items():
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if not {_FLOW_RUN, _RAY_JOB} & _environment(process).keys():  # those pass the request on themselves
                found.append(Workload(f"run {run_id}", process, ()))
    for process in of_setup(root):
        environment = _environment(process)
        with suppress(psutil.Error):
            above = _environment(parent) if (parent := process.parent()) else {}
            for variable, kind in ((_FLOW_RUN, "flow run"), (_RAY_JOB, "job")):
                if variable in environment and variable not in above and _FLOW_RUN not in above:
                    name = f"{kind} (process {process.pid})"
                    found.append(Workload(name, process, tuple(process.children(recursive=True))))
                    break
    return found


def end_workloads(root: Path, log: Log, seconds: float = SAVE_SECONDS) -> None:
    """Ask flow runs and jobs to save and end, and kill those that have not after a while."""
    asked = find_workloads(root)
    for one in asked:
        one.ask_to_end()
    limit, next_line = time.monotonic() + seconds, 0.0
    while (running := [one for one in asked if one.is_running()]) and time.monotonic() < limit:
        if time.monotonic() > next_line:
            names = ", ".join(one.name for one in running)
            log(f"waiting for {names} to save and end, for at most {limit - time.monotonic():.0f} s")
            next_line = time.monotonic() + 10
        time.sleep(0.1)
    for one in running:
        _kill([one.first, *one.below])


def sweep(root: Path) -> int:
    """End what is left of the setup, and remove Ray's sockets; returns how many processes were left."""
    import psutil

    ended: set[int] = set()
    limit = time.monotonic() + _END_SECONDS
    while left := of_setup(root):
        force = time.monotonic() > limit
        for process in left:
            with suppress(psutil.Error):
                process.kill() if force else process.terminate()
        ended |= {process.pid for process in left}
        psutil.wait_procs(left, timeout=_END_SECONDS / 2)
    for socket in ray_folder(state_folder(root)).glob("session_*/sockets/*"):
        socket.unlink(missing_ok=True)
    return len(ended)


def _kill(processes: list[psutil.Process]) -> None:
    import psutil

    for process in processes:
        with suppress(psutil.Error):
            process.kill()
